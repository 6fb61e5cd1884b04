"""A Python that is booted before it is known for which function: copies of it become python.py.

It speaks as the template that the sandbox package describes (Copied, Footing): TEMPLATE is the line, ENTRY the machine code, and what comes
with an assignment is at COPY and above. It never runs a function's code and imports the standard library alone. What is imported here is what
functions and their SDKs use most; nothing that draws a secret or a name at its import may be among it.
"""

import sys

TEMPLATE, ENTRY, COPY = 4, 6, 64
ROOM, PAGE = 1 << 20, 64 << 10

PRELOADED = """
    json logging datetime decimal uuid hashlib hmac base64 random secrets re traceback threading queue functools collections itertools copy enum
    typing inspect dataclasses contextlib concurrent.futures.thread urllib.parse urllib.request http.client http.cookies ssl socket email.parser
    email.message email.utils tempfile time string struct io zlib gzip asyncio subprocess pathlib shutil xml.etree.ElementTree html csv
    configparser locale platform pickle importlib.metadata importlib.util selectors zipfile calendar ipaddress textwrap difflib
"""


# What is supplied to functions that import it, and what its first use imports.
SUPPLIED = """
    boto3 boto3.dynamodb.conditions boto3.dynamodb.transform boto3.dynamodb.types boto3.s3.constants boto3.s3.inject boto3.s3.transfer s3transfer.subscribers
    botocore.client botocore.loaders
"""


class Unfit(Exception):
    """Why copies cannot be made here."""


class Mother:
    """Makes copies of this process."""

    def __init__(self):
        import ctypes
        import json
        import os
        import socket
        import struct

        self.ctypes, self.os, self.json = ctypes, os, json
        self.line = socket.socket(fileno=TEMPLATE)
        self.libc = libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: it goes on with the interpreter's lock, also in a copy
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        libc.syscall.restype = ctypes.c_long
        self.at = self.map(None, ROOM + PAGE, 0, 0x22)  # PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS
        code = os.pread(ENTRY, PAGE, 0)
        entry, = struct.unpack_from("<Q", code, 24)  # elf(5): e_entry, and p_vaddr of the one segment
        address, = struct.unpack_from("<Q", code, 64 + 16)
        self.map(self.at + ROOM, len(code), 5, 0x12, ENTRY)  # PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED
        os.close(ENTRY)
        self.enter = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self.at + ROOM + entry - address)
        self.tid = self.find_tid()
        self.robust = self.find_robust()

    def map(self, at, size, rights, flags, fd=-1):
        got = self.libc.mmap(at, size, rights, flags, fd, 0)
        if got in (None, self.ctypes.c_void_p(-1).value):
            raise OSError(self.ctypes.get_errno(), "mmap")
        return got

    def find_tid(self):
        """Where the C library has the number of this thread, which is another one in a copy."""
        where = self.ctypes.c_void_p()
        if self.libc.prctl(40, self.ctypes.byref(where), 0, 0, 0) != 0 or not where.value:  # PR_GET_TID_ADDRESS
            raise Unfit("the kernel does not say where the thread's number is")
        if self.ctypes.c_int.from_address(where.value).value != self.os.getpid():
            raise Unfit("this C library has the thread's number elsewhere")
        return where.value

    def find_robust(self):
        """The arguments of set_robust_list(2), which a copy has to repeat as fork does."""
        numbers = {"x86_64": (274, 273), "aarch64": (100, 99)}.get(self.os.uname().machine)
        if numbers is None:
            raise Unfit("this processor is not known")
        head, size = self.ctypes.c_void_p(), self.ctypes.c_size_t()
        if self.libc.syscall(numbers[0], 0, self.ctypes.byref(head), self.ctypes.byref(size)) != 0:
            raise Unfit("the kernel does not give the list of robust locks")
        return numbers[1], head, size

    def serve(self):
        """Makes copies until the host is gone. It returns in copies, with the assignment."""
        os, json, line, pythonapi = self.os, self.json, self.line, self.ctypes.pythonapi
        line.send(b'ready {"at": %d, "tid": %d}' % (self.at, self.tid))
        while True:
            data, ancillary, _, _ = line.recvmsg(1 << 20, 1024)
            if not data:
                os._exit(0)
            given = []
            for _, _, raw in ancillary:
                given += [int.from_bytes(raw[i:i + 4], sys.byteorder) for i in range(0, len(raw) - 3, 4)]
            for n, fd in enumerate(given):
                os.dup2(fd, COPY + n, False)
                os.close(fd)
            self.map(self.at, ROOM, 3, 0x12, COPY)  # PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED
            pythonapi.PyOS_BeforeFork()
            made = self.enter(self.at)
            if made == 0:
                pythonapi.PyOS_AfterFork_Child()
                self.settle()
                return json.loads(data)
            pythonapi.PyOS_AfterFork_Parent()
            self.map(self.at, ROOM, 0, 0x32)
            for n in range(len(given)):
                os.close(COPY + n)
            line.send(b"%d" % made)

    def settle(self):
        """Does in a copy what the C library's fork would have done, and lets go of what is the zygote's."""
        number, head, size = self.robust
        self.libc.syscall(number, head, size)
        self.libc.munmap(self.at, ROOM + PAGE)
        self.line.detach()  # closed already


filling = []  # kept for good


def fill_gaps(mother):
    """Uses up what is free between what is in use: what a copy asks for is then in fresh pages, next to each other, and not each in another page
    that the copies had in common.
    """
    malloc = mother.libc.malloc
    malloc.restype, malloc.argtypes = mother.ctypes.c_void_p, [mother.ctypes.c_size_t]
    for size in range(4080, 8, -16):  # the C library's, from the largest: it divides them
        fill(malloc, size, 4)

    def block(size):
        filling.append(bytes(size))
        return id(filling[-1])

    for size in range(0, 480, 16):  # the interpreter's own, in pools of one size each, of 4 KiB and more; a bytes object has 33 bytes more
        fill(block, size, min(24, (3 << 10) // (size + 48)))


def fill(take, size, wanted):
    """Takes until so many came one after the other in memory."""
    last = row = 0
    for _ in range(1000):
        at = take(size)
        row = row + 1 if 0 < at - last <= size + 96 else 0
        if row == wanted:
            break
        last = at


def preload(names):
    from importlib import import_module

    for name in names.split():
        try:
            import_module(name)
        except ImportError:
            pass  # not in this version, or not built


def await_more():
    """Waits in the Sandbox until it is known for which function."""
    import json
    import os

    os.write(TEMPLATE, b"ready")
    data = os.read(TEMPLATE, 128 << 10)
    if not data:
        os._exit(0)  # the host needs it no more
    told = json.loads(data)
    os.chdir(told["dir"] or "/")
    os.write(TEMPLATE, b"taken")
    os.close(TEMPLATE)
    return told


def preload_asked(env):
    """Loads what env asks for, before it is known for which function; whether there was any."""
    asked = [kv.partition("=")[2] for kv in env if kv.startswith("_EBB_PRELOAD=")]
    for folder in asked:
        preload_supplied(folder)
    return bool(asked)


def preload_supplied(folder):
    """Loads the SDK that functions are supplied with."""
    sys.path.insert(0, folder)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        preload(SUPPLIED)
        remember_services(sys.modules["botocore.loaders"], [folder + "/botocore/data", folder + "/boto3/data"])
    except Exception:
        pass  # the function finds out itself
    sys.dont_write_bytecode = before
    sys.path.remove(folder)
    sys.path_importer_cache.pop(folder, None)


def remember_services(loaders, folders):
    """Looks once through the SDK's folders for what services it knows: hundreds, which it goes through three times for the first client."""
    import os

    Loader = loaders.Loader
    find = Loader.list_available_services
    known = {(folder, kind): find(Loader([folder], include_default_search_paths=False), kind) for folder in folders for kind in ("service-2", "resources-1", "endpoint-rule-set-1")}

    def list_available_services(self, type_name):
        paths = [p for p in self.search_paths if p in folders or os.path.isdir(p)]
        if type(self) is Loader and type(self.file_loader) is loaders.JSONFileLoader and all((p, type_name) in known for p in paths):
            return sorted({name for p in paths for name in known[p, type_name]})
        return find(self, type_name)

    Loader.list_available_services = list_available_services


def become(told):
    """Makes this process what python.py finds when it is executed."""
    import os
    import time

    command = told["command"]
    environ = {}
    for kv in told["env"]:
        name, _, value = kv.partition("=")
        environ.setdefault(name, value)
    coerced = os.environ.get("LC_CTYPE")  # the interpreter sets it itself in the C locale (PEP 538), which is the function's too
    if coerced:
        environ.setdefault("LC_CTYPE", coerced)
    os.environ.clear()
    os.environ.update(environ)
    import posix

    posix.environ.clear()
    posix.environ.update((os.fsencode(k), os.fsencode(v)) for k, v in environ.items())
    time.tzset()
    path = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "python.py")
    sys.argv[:] = command[command.index(path):]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = command
    set_path(os)
    refresh(sys.modules.get, time)


def set_path(os):
    """Takes up PYTHONPATH: the host sees to it that it holds absolute paths alone, each once."""
    entries = [p for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    sys.path[1:1] = entries
    site = sys.modules.get("site")
    if site is not None:
        if getattr(site, "USER_BASE", None):  # that of another user
            site.USER_BASE = site.USER_SITE = None
            site.getusersitepackages()
        for name in ("sitecustomize", "usercustomize"):
            if any(os.path.exists(p + "/" + name + end) for p in entries for end in (".py", "", ".pyc")):
                sys.modules.pop(name, None)
                try:
                    __import__(name)
                except ImportError as e:
                    if e.name != name:
                        raise


def refresh(module, time):
    """Renews what modules took from the zygote's own process beside what they renew themselves after a fork (random, threading, logging's locks)."""
    threading = module("threading")
    main = threading.main_thread() if threading else None
    if hasattr(main, "_set_native_id"):
        main._set_native_id()
    logging = module("logging")
    if logging is not None and hasattr(logging, "_startTime"):
        logging._startTime = type(logging._startTime)(time.time() if isinstance(logging._startTime, float) else time.time_ns())
    ssl = module("_ssl")
    if ssl is not None and ssl.OPENSSL_VERSION_NUMBER < 0x30000000:
        import os

        ssl.RAND_add(os.urandom(32), 32.0)  # OpenSSL 3 sees by itself that it is another process


class Shown:
    """What /proc/self/cmdline and environ show: PR_SET_MM_MAP of prctl(2). Made in the zygote, used in copies."""

    def __init__(self, mother):
        import os

        self.mother, self.encode = mother, os.fsencode
        with open("/proc/self/stat" if os.path.exists("/proc/self/stat") else "proc/self/stat", "rb") as f:  # the host's is in the working directory
            stat = f.read().rpartition(b") ")[2].split()
        number = lambda n: int(stat[n - 3])  # fields of proc_pid_stat(5), counted from one
        mother.libc.sbrk.restype, mother.libc.sbrk.argtypes = mother.ctypes.c_void_p, [mother.ctypes.c_long]
        self.fields = (mother.ctypes.c_uint64 * 13)(number(26), number(27), number(45), number(46), number(47), 0, number(28))  # struct prctl_mm_map
        self.fields[12] = 0xffffffff << 32  # the size of a new auxiliary vector, and no new file

    def show(self, command, environ):
        ctypes, libc, fields = self.mother.ctypes, self.mother.libc, self.fields
        args = b"\0".join(map(self.encode, command)) + b"\0"
        both = args + b"\0".join(map(self.encode, environ)) + b"\0"
        at = self.mother.map(None, len(both), 3, 0x22)  # for good
        ctypes.memmove(at, both, len(both))
        fields[5] = libc.sbrk(0)
        fields[7], fields[8], fields[9], fields[10] = at, at + len(args), at + len(args), at + len(both)
        libc.prctl(35, 14, fields, ctypes.c_ulong(ctypes.sizeof(fields)), ctypes.c_ulong(0))  # where that is not allowed it shows the zygote's


def load():
    """Makes the module that is __main__ in copies: python.py, next to this file."""
    own = sys.modules["__main__"]
    path = sys.argv[0].rpartition("/")[0] + "/python.py"
    module = type(own)("__main__")
    names = module.__dict__
    names.update((k, v) for k, v in vars(own).items() if k.startswith("__"))
    names.update(__file__=path, __doc__=None, __loader__=type(own.__loader__)("__main__", path), __waiting__=True)
    with open(path, "rb") as f:
        exec(compile(f.read(), path, "exec"), names)
    from importlib import import_module

    import_module("python_compiled")  # for python.py; it is next to this file
    return module


def names_beside(early):
    """The names, up to their first dot, of what is loaded beside early."""
    return frozenset(name.partition(".")[0] for name in sys.modules if name not in early)


def give_way(early, loaded):
    """Forgets what was loaded ahead under a name that the function's own modules have, which come first.

    loaded is names_beside(early), not made here because to go through sys.modules writes to a page of each name, shared with the zygote until then.
    """
    import os

    supplied = sys.argv[1] + "/python"
    folders = [os.environ["LAMBDA_TASK_ROOT"]] + [p for p in os.environ.get("PYTHONPATH", "").split(":") if p not in ("", supplied)]
    for layer in filter(None, sys.argv[2:3]):
        folders += [layer + "/python", layer + "/python/lib/python%d.%d/site-packages" % sys.version_info[:2]]
    own = set()
    for folder in folders:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            name, _, end = entry.partition(".")
            # A folder that is no package comes after all that is one.
            if name in loaded and (end in ("py", "pyc") or end.endswith("so") or not end and os.path.exists("%s/%s/__init__.py" % (folder, name))):
                own.add(name)
    if not own:
        return
    if own & {name.partition(".")[0] for name in SUPPLIED.split()} or own & {"urllib3", "jmespath", "dateutil", "six"}:
        own |= {"boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six"}  # they are of one piece
    for name in list(sys.modules):
        if name not in early and name.partition(".")[0] in own:
            del sys.modules[name]


def rehearse(module):
    """Does once what every copy will do: what the interpreter notes at that, copies need not note again, each in pages of its own."""
    import json
    import logging
    import os

    path, argv, told = list(sys.path), list(sys.argv), getattr(sys, "orig_argv", [])[:]
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    env = dict(os.environ)
    become({"command": [folder + "/python.py"], "env": ["%s=%s" % kv for kv in env.items()]})
    module.configure()
    module.set_up_logging(logging)
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
        handler.close()
    sys.path.insert(0, folder)
    os.environ["_HANDLER"] = "python.main"  # any module that can be imported, and what it has
    module.load(os.environ["_HANDLER"])
    module.invoke(lambda event, context: {"body": json.dumps(event)}, "\n0\n\n\n", b'{"key": ["value", 1]}')
    module.Line()
    del sys.modules["python"]
    sys.path[:], sys.argv[:] = path, argv
    if told:
        sys.orig_argv[:] = told
    sys.path_importer_cache.pop(folder, None)
    os.environ.pop("_HANDLER", None)


def main():
    try:
        sys.dont_write_bytecode = True
        early = set(sys.modules)
        early.update(("json", "time", "struct"))  # python.py's own
        preload(PRELOADED)
        module = load()
        for _ in range(3):
            rehearse(module)
        mother = Mother()
        shown = Shown(mother)
        import gc
        import posix  # used in copies

        sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
        loaded = names_beside(early)
        gc.collect()
        fill_gaps(mother)
        gc.freeze()
    except Exception as e:
        import os

        os.write(TEMPLATE, ("unfit %s: %s" % (type(e).__name__, e)).encode()[:1000])
        os._exit(1)
    told = mother.serve()
    if told.get("wait"):
        if preload_asked(told["env"] or ()):
            loaded = names_beside(early)
        told = await_more()
    become(told)
    give_way(early, loaded)
    shown.show(told["command"], told["env"])
    sys.modules["__main__"] = module
    return module.main


if __name__ == "__main__":
    main()()
