"""Bytecode of the function's own modules. It is loaded where the host has some, or wants it.

Python looks for bytecode next to the source, and a function's code is shared and never written. So modules from the folders that are given have
it in a folder of the host's instead, by a name for each; they are shown read-only to all Instances but the first, which makes them.
"""

import sys
from struct import pack

MOST = 16 << 20  # bytes, as the host takes


def name(path):
    import _imp

    return "%s%s/%s.pyc" % (sys.implementation.cache_tag, "-O%s" % sys.flags.optimize if sys.flags.optimize else "", _imp.source_hash(0x656262, path.encode("utf-8", "surrogateescape")).hex())


def use(where, roots):
    """Has modules from roots use the folder where, or with "keep" a new one. Gives what collects the bytecode then, as the host wants it, or None."""
    import os

    keep = where == "keep"
    machinery = sys.modules.get("_frozen_importlib_external")
    try:
        find = machinery.cache_from_source
        if keep:
            where = "/tmp/.compiled-%d" % os.getpid()
            os.mkdir(where, 0o700)
        has = {"%s/%s" % (folder, file) for folder in os.listdir(where) for file in os.listdir(where + "/" + folder)}
    except (AttributeError, OSError):
        return None

    def cache_from_source(path, *args, **kwargs):
        own = find(path, *args, **kwargs)
        if args or kwargs or not path.startswith(roots):
            return own
        at = name(path)
        if at in has or keep and not os.path.exists(own):
            return where + "/" + at
        return own

    machinery.cache_from_source = cache_from_source
    if not keep:
        return None
    sys.dont_write_bytecode = False

    def collect():
        sys.dont_write_bytecode = True
        machinery.cache_from_source = find
        try:
            parts, size = [], 0

            def add(at, data):
                nonlocal size
                more = 6 + len(at) + len(data)
                if size + more <= MOST:
                    parts.extend((pack("<H", len(at)), at, pack("<I", len(data)), data))
                    size += more

            for folder in os.listdir(where):
                for file in os.listdir(where + "/" + folder):
                    with open("%s/%s/%s" % (where, folder, file), "rb") as f:
                        add(("%s/%s" % (folder, file)).encode(), f.read())
            if not parts:  # nobody has to try again
                add(b"%s/none" % sys.implementation.cache_tag.encode(), b"")
            return b"".join(parts)
        except OSError:
            return None
        finally:
            remove(os, where)

    return collect


def remove(os, dir):
    for above, _, files in os.walk(dir, topdown=False):
        try:
            for file in files:
                os.unlink(above + "/" + file)
            os.rmdir(above)
        except OSError:
            pass  # /tmp ends with the Instance
