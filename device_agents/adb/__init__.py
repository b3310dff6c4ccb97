"""The ways to an Android device: through the adb server that runs here, or straight to the device over TCP or USB.

Both open a byte stream by the name of a service on the device; one shell client and one file client work over either.
It starts and ends no adb server. Read next: `choice.py` for the choice, `stream.py` for the seam,
`transport.py` for what is built on it.
"""
