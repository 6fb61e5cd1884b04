"""The guest's side of a Python function: it loads the handler, then serves Invocations as frames on descriptor 3.

Arguments, the last ones perhaps missing: supplied SDK folder or "", the layers' folder or "", the folder with bytecode or "keep" where it is to
be collected; behind a wrapper script they come in _EBB_BOOTSTRAP, by line. Runs on Python 3.8 and later. Imports cost start-up time: what only some functions need is imported by them or on first use.

A frame is length (uint32, little endian), kind (uint8), flags (uint8), call (uint16), then length bytes. An Invocation is HEAD, any
number of BODY, END; so is its answer.
"""

import sys
import os
import json
import time
from struct import Struct

HEAD, BODY, END, READY, FAILED, KEPT = 1, 2, 3, 4, 5, 8
LAST = 1  # flag: the guest ends after this answer
FRAME = Struct("<IBBH")
LINE = 3  # the descriptor
ROOM = 16 << 10  # bytes of events, until one is longer

call = 0  # number of the Invocation in progress
request_id = ""


class Line:
    """Reads and writes frames."""

    def __init__(self):
        self.buf = bytearray(ROOM)
        self.view = memoryview(self.buf)
        self.lo = self.hi = 0

    def fill(self, n):
        """Has n bytes unread in buf."""
        have = self.hi - self.lo
        if have >= n:
            return
        if n > len(self.buf):
            buf = bytearray(n)
            buf[:have] = self.view[self.lo:self.hi]
            self.buf, self.view = buf, memoryview(buf)
        elif self.lo:
            self.buf[:have] = bytes(self.view[self.lo:self.hi])
        self.lo, self.hi = 0, have
        while self.hi < n:
            got = os.readv(LINE, [self.view[self.hi:]])
            if got == 0:
                os._exit(0)  # the host is gone
            self.hi += got

    def next(self):
        """Gives kind, call and bytes of the next frame; the bytes are good until the following call."""
        self.fill(8)
        length, kind, _, number = FRAME.unpack_from(self.buf, self.lo)
        self.fill(8 + length)
        at = self.lo + 8
        self.lo = at + length
        return kind, number, self.view[at:self.lo]

    def shrink(self):
        """Lets go of a buffer that one large event needed."""
        if len(self.buf) > 1 << 20 and self.lo == self.hi:
            self.buf = bytearray(ROOM)
            self.view = memoryview(self.buf)
            self.lo = self.hi = 0


def send(frames):
    """Writes frames, (kind, flags, bytes) each, in one go."""
    data = b"".join([part for kind, flags, body in frames for part in (FRAME.pack(len(body), kind, flags, call), body)])
    n = os.write(LINE, data)
    if n < len(data):
        rest = memoryview(data)[n:]
        while rest:
            rest = rest[os.write(LINE, rest):]


# ---- output ----------------------------------------------------------------------------------------------------------

json_logs = False


def flush():
    """Has all output out before the answer."""
    for f in (sys.stdout, sys.stderr):
        try:
            f.flush()
        except Exception:
            pass


def set_up_logging(logging):
    """Configures the root logger as Lambda does."""

    class Filter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = request_id
            return True

    class Handler(logging.Handler):
        def emit(self, record):
            try:
                sys.stdout.write(self.format(record))
                sys.stdout.flush()
            except Exception:
                self.handleError(record)

    if json_logs:
        formatter = json_formatter(logging)
    else:
        formatter = logging.Formatter(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = Handler()
    handler.setFormatter(formatter)
    handler.addFilter(Filter())
    logging.root.addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    names = {"TRACE": "NOTSET", "FATAL": "CRITICAL"}
    if json_logs and level:
        logging.root.setLevel(names.get(level, level))


def json_formatter(logging):
    standard = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "aws_request_id"}

    class Formatter(logging.Formatter):
        def format(self, record):
            line = {
                "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
                "level": record.levelname,
                "message": record.getMessage(),
                "logger": record.name,
            }
            if record.exc_info and record.exc_info[0]:
                line["stackTrace"] = self.formatException(record.exc_info).split("\n")
                line["errorType"] = record.exc_info[0].__name__
                line["errorMessage"] = str(record.exc_info[1])
                line["location"] = "%s:%s:%s" % (record.pathname, record.funcName, record.lineno)
            line["requestId"] = request_id
            line.update((k, v) for k, v in record.__dict__.items() if k not in standard)
            return json.dumps(line, default=str) + "\n"

    return Formatter()


class LoggingFinder:
    """Configures logging when something imports it first."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            set_up_logging(module)

        spec.loader.exec_module = exec_module
        return spec


# ---- errors ----------------------------------------------------------------------------------------------------------


class Fault(Exception):
    """An error of ebb's own finding, with AWS's name for it."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind, self.message, self.trace = kind, message, list(trace)


def trace_of(err):
    """The stack of the user's own frames."""
    import traceback

    frames = traceback.extract_tb(err.__traceback__)
    frames = [f for f in frames if f.filename != __file__ and not f.filename.startswith("<frozen importlib")]
    return traceback.format_list(frames)


def document(kind, message, trace, rid):
    doc = {"errorMessage": message, "errorType": kind}
    if rid is not None:
        doc["requestId"] = rid
    doc["stackTrace"] = trace
    return doc


def describe(err, rid):
    if isinstance(err, Fault):
        return document(err.kind, err.message, err.trace, rid)
    try:
        message = str(err)
    except Exception:
        message = "<unprintable %s>" % type(err).__name__
    return document(type(err).__name__, message, trace_of(err), rid)


def log_error(doc):
    if json_logs:
        line = {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "log_level": "ERROR"}
        line.update(doc)
        print(json.dumps(line), flush=True)
        return
    lines = ["[ERROR] %s: %s" % (doc["errorType"], doc["errorMessage"])]
    if doc["stackTrace"]:
        lines.append("Traceback (most recent call last):")
        lines.extend(s.rstrip("\n") for s in doc["stackTrace"])
    print("\n".join(lines), flush=True)


def encoded(doc):
    # Lone surrogates, of a file name for example, have no UTF-8.
    return json.dumps(doc).encode("utf-8", "backslashreplace")


# ---- one Invocation --------------------------------------------------------------------------------------------------


class Client:
    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    def __init__(self, fields):
        for name in self.__slots__:
            setattr(self, name, fields.get(name))


class ClientContext:
    __slots__ = ("custom", "env", "client")

    def __init__(self, text):
        fields = json.loads(text)
        self.custom = fields.get("custom")
        self.env = fields.get("env")
        client = fields.get("client")
        self.client = Client(client) if isinstance(client, dict) else None


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self):
        self.cognito_identity_id = self.cognito_identity_pool_id = None


class LambdaContext:
    log_group_name = log_stream_name = function_name = memory_limit_in_mb = function_version = None

    def __init__(self, rid, deadline, arn, client):
        self.aws_request_id = rid
        self.invoked_function_arn = arn
        self.client_context = None
        if client:
            try:
                self.client_context = ClientContext(client)
            except Exception as e:
                raise Fault("Runtime.LambdaContextUnmarshalError", "Unable to parse client context: %s" % e)
        self.identity = CognitoIdentity()
        self.tenant_id = None
        self._deadline = deadline

    def get_remaining_time_in_millis(self):
        left = self._deadline - int(time.time() * 1000)
        return left if left > 0 else 0

    def log(self, msg):
        sys.stdout.write(str(msg))
        sys.stdout.flush()

    def __repr__(self):
        names = ("aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb", "function_version",
                 "invoked_function_arn", "client_context", "identity", "tenant_id")
        return "LambdaContext([%s])" % ",".join("%s=%s" % (n, getattr(self, n)) for n in names)


def jsonable(obj):
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(obj, decimal.Decimal):
        return float(obj)
    raise TypeError("Object of type %s is not JSON serializable" % type(obj).__name__)


# AWS writes text as it is from 3.12 on, and escapes it before.
dumps = json.JSONEncoder(default=jsonable, ensure_ascii=sys.version_info < (3, 12)).encode


def invoke(handler, head, body):
    """Runs the handler and gives the kind of the answer and its bytes."""
    global request_id
    rid, deadline, arn, trace, client = head.split("\n")
    request_id = rid
    if trace:
        os.environ["_X_AMZN_TRACE_ID"] = trace
    try:
        try:
            event = json.loads(body)
        except Exception as e:
            raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % e)
        result = handler(event, LambdaContext(rid, int(deadline), arn, client))
        try:
            return b"r", dumps(result).encode()
        except Exception as e:
            raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % e)
    except Exception as e:
        doc = describe(e, rid)
        e = None
        log_error(doc)
        return b"e", encoded(doc)


def serve(handler):
    global call
    line = Line()
    head, parts = "", None
    while True:
        kind, number, data = line.next()
        if kind == HEAD:
            call, head, parts = number, str(data, "utf-8"), None
        elif kind == BODY:
            parts = parts or []
            parts.append(bytes(data))
        elif kind == END:
            body = bytes(data) if parts is None else b"".join(parts + [data])
            del data
            parts = None
            kind, out = invoke(handler, head, body)
            del body
            flush()
            send(((HEAD, 0, kind), (END, 0, out)))
            line.shrink()


# ---- loading the handler ---------------------------------------------------------------------------------------------


def load(name):
    from importlib import import_module

    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % name)
    dotted = module.replace("/", ".")
    if dotted.split(".")[0] in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict", "Cannot use built-in module %s as a handler module" % module)
    try:
        m = import_module(dotted)
    except ImportError as e:
        raise Fault("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module, e), trace_of(e))
    except SyntaxError as e:
        place = '  File "%s" Line %s\n    %s' % (e.filename, e.lineno, (e.text or "").rstrip("\n"))
        raise Fault("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module, e), [place])
    try:
        return getattr(m, attribute)
    except AttributeError:
        raise Fault("Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (attribute, module))


def set_up_path():
    """The code, the layers and the supplied SDKs, in this order, before the standard library. Gives what collects bytecode, or None."""
    given = os.environ.pop("_EBB_BOOTSTRAP", None)
    args = sys.argv[1:] if given is None else given.split("\n")
    supplied, layers, compiled = args[0], [p for p in args[1:2] if p], args[2:]
    root = os.environ["LAMBDA_TASK_ROOT"]
    first = [root]
    for layer in layers:
        own = "python%d.%d" % sys.version_info[:2]
        asked = os.environ.get("AWS_EXECUTION_ENV", "").replace("AWS_Lambda_", "")
        # Another version than the one asked for may run here: what is made for it goes first.
        for version in [own] + [asked] * (asked not in ("", own)):
            first.append("%s/python/lib/%s/site-packages" % (layer, version))
        first.append(layer + "/python")
    # sys.path[0] is the folder of this file.
    rest = sys.path[1:]
    if supplied:
        folder = supplied + "/python"
        rest = [p for p in rest if p != folder]
        at = sum(1 for p in os.environ.get("PYTHONPATH", "").split(":") if p and p in rest)
        rest.insert(at, folder)
    sys.path[:] = first + rest
    sys.argv[:] = [sys.argv[0]]
    module = sys.modules.pop("python_compiled", None)  # python-zygote.py has loaded it
    if not compiled:
        return None
    if module is None:
        from importlib import import_module

        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        module = import_module("python_compiled")
        del sys.path[0], sys.modules["python_compiled"]
    return module.use(compiled[0], tuple(p + "/" for p in [root, supplied] + layers if p))


def configure():
    """Takes what the environment says. It is not known yet when python-zygote.py loads this file."""
    global json_logs
    get = os.environ.get
    json_logs = get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    LambdaContext.log_group_name = get("AWS_LAMBDA_LOG_GROUP_NAME")
    LambdaContext.log_stream_name = get("AWS_LAMBDA_LOG_STREAM_NAME")
    LambdaContext.function_name = get("AWS_LAMBDA_FUNCTION_NAME")
    LambdaContext.memory_limit_in_mb = get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    LambdaContext.function_version = get("AWS_LAMBDA_FUNCTION_VERSION")


def main():
    configure()
    # The code's folder is shared and never written.
    sys.dont_write_bytecode = True
    collect = set_up_path()
    for f in (sys.stdout, sys.stderr):
        f.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
    os.set_inheritable(LINE, False)
    if "logging" in sys.modules:
        set_up_logging(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, LoggingFinder())
    clock = time.monotonic  # the handler may replace it
    loading = clock()
    try:
        handler = load(os.environ["_HANDLER"])
    except Exception as e:
        doc = describe(e, "")
        log_error(doc)
        flush()
        send(((FAILED, LAST, encoded(doc)),))
        os._exit(1)
    took = (clock() - loading) * 1e6
    compiled = collect and collect()
    if compiled:
        send(((KEPT, 0, compiled),))
    send(((READY, 0, b"%d" % took),))
    serve(handler)


# multiprocessing loads this file again in the processes that it does not fork, and python-zygote.py calls main later.
if __name__ == "__main__" and not globals().pop("__waiting__", False):
    main()
