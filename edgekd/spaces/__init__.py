"""Search spaces as data, architectures as frozen values, and what is made of them: graphs and torch modules."""
