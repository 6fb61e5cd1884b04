import subprocess

import greetings


def hello(event, context):
    name = event["pathParameters"]["name"]
    loud = subprocess.run(["shout", greetings.greet(name)], capture_output=True, text=True, check=True)
    return {"message": loud.stdout.strip()}
