"""Loaded first by each Python program of a function that shares this machine's network: connections to the names of captured services, and to
the address that they resolve to here, go to ebb instead. _EBB_CAPTURE says where that is, with TLS and without, and which domains. The next
sitecustomize of the search path is loaded as if this one were not there. Runs on Python 3.8 and later.
"""

import os
import sys

STAND_IN = "198.18.0.1"  # stands for all names; RFC 2544, section C.2.2: nobody's


def hook(socket, tls, clear, ends):
    """Has the module socket find ebb."""
    import errno

    def captured(host):
        if isinstance(host, (bytes, bytearray)):
            host = bytes(host).decode("ascii", "replace")
        return isinstance(host, str) and (host[:-1] if host.endswith(".") else host).lower().endswith(ends)

    def address(text):
        host, _, port = text.rpartition(":")
        return host, int(port)

    places = {443: address(tls), 80: address(clear)}

    def moved(address):
        """Where a connection to an address really goes."""
        if not isinstance(address, tuple) or len(address) < 2:
            return address
        host, port = address[:2]
        if captured(host) or host in (STAND_IN, "::ffff:" + STAND_IN):
            if port not in places:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "%s:%s: AWS's services answer at 443 and 80" % (host, port))
            return places[port]
        if isinstance(host, str) and host.lower().startswith(("169.254.", "::ffff:169.254.", "fd00:ec2:", "metadata.google.internal")):
            raise OSError(errno.EHOSTUNREACH, "%s: metadata of this machine is not a function's" % host)
        return address

    base = socket.socket
    connect, connect_ex = base.connect, base.connect_ex

    def new_connect(self, address):
        return connect(self, moved(address))

    def new_connect_ex(self, address):
        try:
            address = moved(address)
        except OSError as e:
            return e.errno
        return connect_ex(self, address)

    base.connect, base.connect_ex = new_connect, new_connect_ex

    getaddrinfo, by_name, by_name_ex = socket.getaddrinfo, socket.gethostbyname, socket.gethostbyname_ex

    def new_getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        if not captured(host):
            return getaddrinfo(host, port, family, type, proto, flags)
        if family not in (0, socket.AF_INET):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(STAND_IN, port, socket.AF_INET, type, proto, flags & ~socket.AI_CANONNAME)

    def new_by_name(host):
        return STAND_IN if captured(host) else by_name(host)

    def new_by_name_ex(host):
        return (host, [], [STAND_IN]) if captured(host) else by_name_ex(host)

    socket.getaddrinfo, socket.gethostbyname, socket.gethostbyname_ex = new_getaddrinfo, new_by_name, new_by_name_ex


class SocketFinder:
    """Hooks socket when something imports it first: to import it here would cost every program."""

    def __init__(self, *where):
        self.where = where

    def find_spec(self, name, path=None, target=None):
        if name != "socket":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            hook(module, *self.where)

        spec.loader.exec_module = exec_module
        return spec


def install():
    words = os.environ.get("_EBB_CAPTURE", "").split()
    if len(words) < 3:
        return
    where = words[0], words[1], tuple("." + d for d in words[2:])
    if "socket" in sys.modules:
        hook(sys.modules["socket"], *where)
    else:
        sys.meta_path.insert(0, SocketFinder(*where))


def step_aside():
    """Loads the sitecustomize that would have been found."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here]
    me = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize
    except ImportError as e:
        if e.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = me


install()
step_aside()
