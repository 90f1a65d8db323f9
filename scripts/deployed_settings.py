"""Writes the settings that docker-compose.yml, deploy/kubernetes and deploy/systemd give an instance, one file each of NAME=value lines.

Usage: deployed_settings.py SECRETS OUT. SECRETS is a .env as scripts/env.sh writes it; OUT a folder. Paths on the target machine become
paths below OUT, so that `mangrove check` may look at them.
"""

import re
import sys
from pathlib import Path

import yaml

secrets_file, out = sys.argv[1], Path(sys.argv[2])
secrets = dict(line.split("=", 1) for line in Path(secrets_file).read_text().splitlines() if line and not line.startswith("#"))
out.mkdir(parents=True)


def write(name: str, settings: dict) -> None:
    folder = out.parent / "files"
    lines = []
    for key, value in settings.items():
        value = re.sub(r"^/(data|models|var/lib/mangrove)\b", lambda found: f"{folder}/{found[1]}", str(value))
        lines.append(f"{key}={value}\n")
    (out / name).write_text("".join(lines))


# What the image itself sets.
image = {}
for line in Path("Dockerfile").read_text().splitlines():
    if line.startswith("ENV "):
        image |= dict(pair.split("=", 1) for pair in line[4:].split())


def interpolate(value: object) -> str:
    def known(found: re.Match) -> str:
        name, needed = found[1], found[2]
        if name not in secrets and needed is None:
            sys.exit(f"docker-compose.yml uses {name}, which scripts/env.sh does not write")
        return secrets[name]

    return re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", known, str(value))


compose = yaml.safe_load(Path("docker-compose.yml").read_text())
for name, service in compose["services"].items():
    if service.get("image", "").startswith("mangrove"):
        settings = {key: interpolate(value) for key, value in service["environment"].items()}
        advertised = re.search(r'HTTP_ADVERTISED_ADDR="\$\$\(hostname\):(\d+)"', str(service.get("entrypoint")))
        settings["HTTP_ADVERTISED_ADDR"] = f"0a1b2c3d4e5f:{advertised[1]}" if advertised else "instance:8000"
        write(f"compose-{name}", image | settings)

for path in Path("deploy/kubernetes").glob("*.yaml"):
    documents = list(yaml.safe_load_all(path.read_text()))
    maps = {document["metadata"]["name"]: document["data"] for document in documents if document["kind"] == "ConfigMap"}
    kept = {"API_TOKENS": secrets["API_TOKENS"], "DATABASE_URL": f"postgres://m:{secrets['POSTGRES_PASSWORD']}@postgres/m"}
    for document in documents:
        if document["kind"] != "StatefulSet":
            continue
        pod = document["spec"]["template"]["spec"]
        for container in pod["containers"]:
            settings = dict(image)
            for source in container["envFrom"]:
                settings |= maps[source["configMapRef"]["name"]] if "configMapRef" in source else kept
            for variable in container["env"]:
                value = variable.get("value") or f"{document['metadata']['name']}-0"
                settings[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], value)
            write(f"kubernetes-{container['name']}", settings)

unit = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}
for line in Path("deploy/systemd/mangrove.service").read_text().splitlines():
    if line.startswith("Environment="):
        unit |= dict(pair.split("=", 1) for pair in line.removeprefix("Environment=").split())
write("systemd-mangrove", unit)
