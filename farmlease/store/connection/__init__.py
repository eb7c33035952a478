"""The way to the server: addresses, sockets, routes, errors of the driver, and the embedded server."""
