"""Virtual devices: real daemons in network namespaces of their own, on file systems made of Debian's packages.

    cli.py        the commands, and the order of what `up` and `down` do
    kinds.py      which devices there are
    packages.py   what the host needs, and the emulator's registration
    building.py   folders that are built once, by their recipe
    rootfs.py     Debian root folders and Python wheels
    trees.py      a device's own file system around such a root
    network.py    namespaces and links
    daemons.py    starting, asking, cutting and ending devices
    init.py       a device's first process
    usb_vm.py     a virtual machine with a phone on its own USB bus, apart from these devices
    usb_image.py  its kernel and files; cpio.py, which packs them
    files/        stand-ins for a phone's and a board's programs and kernel files

The product never imports this; its tests run tools/virtual_devices. Needs Linux, root, and the standard library alone.
"""
