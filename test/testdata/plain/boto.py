import http.client
import os
import socket
import ssl
import subprocess
import sys

import boto3
import botocore.session

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


def who(**more):
    return boto3.session.Session(**more).client("sts", region_name="eu-west-1").get_caller_identity()["Arn"]


def raw():
    c = http.client.HTTPSConnection("sqs.eu-west-1.amazonaws.com", timeout=30)
    c.request("GET", "/?Action=ListQueues")
    return "arn:" if b"MissingAuthenticationToken" in c.getresponse().read() else "failed: no answer of ebb's"


def by_address():
    address = socket.getaddrinfo("sqs.eu-west-1.amazonaws.com", 443, type=socket.SOCK_STREAM)[0][4]
    with ssl.create_default_context().wrap_socket(socket.create_connection(address, 30), server_hostname="sqs.eu-west-1.amazonaws.com"):
        return "arn:TLS"


def child():
    code = "import http.client as h, builtins; c = h.HTTPSConnection('sts.amazonaws.com', timeout=30); c.request('GET', '/'); print(c.getresponse().status, builtins.the_projects_own)"
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return "arn:" + r.stdout if r.stdout.endswith(" True\n") else "failed: " + r.stdout + r.stderr


def metadata():
    return socket.create_connection(("169.254.169.254", 80), 10)


def handler(event, context):
    out = {"home": os.path.expanduser("~")}

    def note(name, f, **more):
        try:
            out[name] = str(f(**more))
        except Exception as e:
            out[name] = "failed: %s %s" % (type(e).__name__, e)

    note("own", who)
    kept = dict(os.environ)
    del os.environ["AWS_ENDPOINT_URL"]
    note("own by name", who)
    for name in PROXIES:
        del os.environ[name]
    note("own by name, without a proxy", who)
    note("own request", raw)
    note("own socket", by_address)
    note("own child", child)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del os.environ[name]
    for profile in ("default", "process", "sso", "role"):
        note("profile " + profile, who, profile_name=profile)
    note("none", who)
    note("metadata", metadata)
    os.environ.update(kept)
    return out
