"""Runs SAM's own transform over templates: prints, for each file named on standard input, one line of JSON."""
import json
import os
import sys

import yaml

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
from samtranslator.public.translator import ManagedPolicyLoader  # noqa: F401 (says early that the package is complete)
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class Policies:
    def load(self):
        return {}


def remote(props, key):
    value = props.get(key)
    if value is None and key == "CodeUri" and "InlineCode" not in props and props.get("PackageType") != "Image":
        props[key] = "s3://bucket/key"
    elif isinstance(value, str) and not value.startswith("s3://"):
        props[key] = "s3://bucket/key"


for name in sys.stdin.read().split("\n"):
    if not name:
        continue
    try:
        with open(name) as f:
            template = yaml_parse(f.read())
        given = {}
        if os.path.exists(name + ".params"):
            with open(name + ".params") as f:
                given = json.load(f)
        globals_ = (template.get("Globals") or {}).get("Function") or {}
        if "CodeUri" in globals_:
            remote(globals_, "CodeUri")
        for resource in template["Resources"].values():
            props = resource.setdefault("Properties", {}) or {}
            resource["Properties"] = props
            if resource["Type"] == "AWS::Serverless::Function":
                if "CodeUri" in props or "CodeUri" not in globals_:
                    remote(props, "CodeUri")
                if props.get("PackageType") == "Image" and "ImageUri" not in props:
                    props["ImageUri"] = "image of it"
            if resource["Type"] == "AWS::Serverless::LayerVersion":
                remote(props, "ContentUri")
            if resource["Type"] in ("AWS::Serverless::Api", "AWS::Serverless::HttpApi", "AWS::Serverless::StateMachine"):
                remote(props, "DefinitionUri")
            if resource["Type"] == "AWS::Serverless::Application" and isinstance(props.get("Location"), str):
                props["Location"] = "https://bucket.s3.amazonaws.com/key"
        out = transform(template, given, Policies())
        print(json.dumps({"name": name, "template": out}, default=str))
    except BaseException as e:  # a template that SAM refuses is one too
        text = str(e)
        for cause in getattr(e, "causes", None) or []:
            text += " | " + cause.message
        print(json.dumps({"name": name, "error": type(e).__name__ + ": " + text}))
