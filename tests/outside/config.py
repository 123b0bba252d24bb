"""Usage: config.py BINARY SCHEMA. What the schema says of configurations, beside what the gateway says."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib

import jsonschema

binary, schema = sys.argv[1], json.load(open(sys.argv[2]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)


def faults(text: str) -> list[str]:
    return [fault.message for fault in validator.iter_errors(tomllib.loads(text))]


def is_checked(text: str) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run([binary, "check", "--offline", "--config", file.name], capture_output=True)
        return done.returncode == 0


shipped = open("config/gateway.toml").read()
turned_on = "\n".join(re.sub(r"^#(?=[a-z\[])", "", line) for line in shipped.split("\n"))
for text in [shipped, turned_on]:
    assert faults(text) == [], faults(text)
    assert is_checked(text)

# Each key with a value of another form: the schema refuses what the gateway refuses.
tried = 0
for number, line in enumerate(turned_on.split("\n")):
    key = re.match(r"^([a-z_0-9]+) = ", line)
    if not key:
        continue
    for value in ["7.5", "[[1]]", "{ x = 1 }", "-1"]:
        lines = turned_on.split("\n")
        lines[number] = f"{key[1]} = {value}"
        text = "\n".join(lines)
        assert not is_checked(text) and faults(text), f"{lines[number]}: {faults(text)}"
        tried += 1
    lines = turned_on.split("\n")
    lines.insert(number, f"not_{key[1]} = 1")
    assert faults("\n".join(lines)), line
print(f"{tried} values of another form are refused by both")
assert tried > 300, tried
