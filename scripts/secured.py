#!/usr/bin/env python3
"""Compares what `mqtt broker` and Mosquitto spend of CPU and memory over TLS and WebSocket, under the same load.

CPU is that of the broker's process alone, so that other work of the machine changes it little. Each row is the least of the rounds, which take
turns between the brokers. Needs openssl and Mosquitto. Arguments: --mqtt PROGRAM (built by release, if it is not given), --rounds N, --seconds N,
and for a part of the tables --part messages, handshakes or idle, and --scheme.
"""
import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
SCHEMES = ["mqtt", "mqtts", "ws", "wss"]
LOADS = [("64 B, QoS 0", ["-s", "64", "-q", "0"]), ("64 B, QoS 1", ["-s", "64", "-q", "1"]), ("16 KiB, QoS 0", ["-s", "16384", "-q", "0"])]
IDLE = 1000
PARTS = ["messages", "handshakes", "idle"]


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def certify(folder):
    """Makes an authority, and a certificate for localhost that it signed."""
    at = lambda name: os.path.join(folder, name)
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    run(*new, "-subj", "/CN=benchmark", "-keyout", at("ca.key"), "-out", at("ca"))
    run(*new, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE",
        "-CA", at("ca"), "-CAkey", at("ca.key"), "-keyout", at("key"), "-out", at("cert"))
    for name in os.listdir(folder):
        os.chmod(at(name), 0o644)
    os.chmod(folder, 0o755)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Broker:
    def __init__(self, name, mqtt, folder):
        self.name, self.ports = name, {scheme: free_port() for scheme in SCHEMES}
        cert, key = os.path.join(folder, "cert"), os.path.join(folder, "key")
        if name == "mqtt broker":
            words = [mqtt, "broker", "--cert", cert, "--key", key, "--log", "warn", "--threads", "1"]
            words += [f"--bind={scheme}://127.0.0.1:{port}" for scheme, port in self.ports.items()]
        else:
            config = "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"
            for scheme, port in self.ports.items():
                config += f"listener {port} 127.0.0.1\n"
                config += "protocol websockets\n" if scheme.startswith("ws") else ""
                config += f"certfile {cert}\nkeyfile {key}\n" if scheme in ("mqtts", "wss") else ""
            path = os.path.join(folder, "mosquitto.conf")
            with open(path, "w") as file:
                file.write(config)
            words = ["mosquitto", "-c", path]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in self.ports.values():
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)

    def cpu(self):
        """Seconds of CPU so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """Kilobytes in memory."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])

    def end(self):
        self.process.terminate()
        self.process.wait()


def words_of(broker, scheme, folder):
    words = ["-h", "localhost", "-p", str(broker.ports[scheme])]
    words += ["--ws"] if scheme.startswith("ws") else []
    return words + (["--cafile", os.path.join(folder, "ca")] if scheme in ("mqtts", "wss") else [])


def message(options, broker, scheme, load, folder):
    """Microseconds of the broker's CPU for a message that was delivered, and messages a second."""
    before = broker.cpu()
    words = [options.mqtt, "bench", "--json", "-d", str(options.seconds), *load, *words_of(broker, scheme, folder)]
    told = json.loads(run(*words))
    count = told["received"]
    return (broker.cpu() - before) / count * 1e6, count / options.seconds


def handshakes(options, broker, kind):
    """Microseconds of the broker's CPU for a handshake of TLS 1.2, by openssl."""
    before = broker.cpu()
    words = ["openssl", "s_time", "-connect", f"127.0.0.1:{broker.ports['mqtts']}", kind, "-time", str(options.seconds), "-tls1_2"]
    told = subprocess.run(words, capture_output=True, text=True).stdout
    count = int(re.findall(r"(\d+) connections in \d+ real seconds", told)[-1])
    return (broker.cpu() - before) / count * 1e6, count / options.seconds


def idle(options, broker, scheme, folder):
    """Kilobytes for each of many connections that only pass PINGREQ."""
    before = broker.memory()
    words = [options.mqtt, "bench", "--json", "--connect", str(IDLE), "--connect-rate", "200", "--retries", "3", "-d", "3", *words_of(broker, scheme, folder)]
    clients = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = before
    while clients.poll() is None:
        most = max(most, broker.memory())
        time.sleep(0.05)
    if clients.returncode != 0:
        sys.exit(f"{broker.name}, {scheme}: not all {IDLE} clients connected")
    return (most - before) / IDLE, 0


def table(title, names, rows):
    print(f"\n{title}\n\n| | {' | '.join(names)} | ratio |\n| --- |{' --- |' * (len(names) + 1)}")
    for name, values in rows:
        ours, other = (values[broker] for broker in names)
        print(f"| {name} | {ours[0]:.1f} ({ours[1]:,.0f}/s) | {other[0]:.1f} ({other[1]:,.0f}/s) | {other[0] / ours[0]:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mqtt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--scheme", action="append", choices=SCHEMES)
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    if not options.mqtt:
        subprocess.run(["cargo", "build", "--locked", "--quiet", "--release", "-p", "sansio-mqtt-cli"], cwd=ROOT, check=True)
        options.mqtt = os.path.join(ROOT, "target/release/mqtt")
    names = ["mqtt broker", "Mosquitto"]
    parts, schemes = options.part or PARTS, options.scheme or SCHEMES
    with tempfile.TemporaryDirectory() as folder:
        certify(folder)

        def least(measure):
            values = {}
            for _ in range(options.rounds):
                for name in names:
                    broker = Broker(name, options.mqtt, folder)
                    try:
                        values[name] = min(values.get(name, (1e9, 0)), measure(broker))
                    finally:
                        broker.end()
            return values

        if "messages" in parts:
            rows = [(f"{scheme}, {load}", least(lambda broker: message(options, broker, scheme, words, folder)))
                    for load, words in LOADS for scheme in schemes]
            table("Microseconds of the broker's CPU for a message (messages a second)", names, rows)
        if "handshakes" in parts:
            rows = [(name, least(lambda broker: handshakes(options, broker, kind))) for name, kind in (("first", "-new"), ("resumed", "-reuse"))]
            table("Microseconds of the broker's CPU for a handshake of TLS 1.2 (handshakes a second)", names, rows)
        if "idle" in parts:
            print(f"\nKilobytes of the broker for each of {IDLE} idle connections\n")
            for scheme in schemes:
                values = least(lambda broker: idle(options, broker, scheme, folder))
                print(f"{scheme}: " + ", ".join(f"{name} {values[name][0]:.1f}" for name in names), flush=True)


if __name__ == "__main__":
    sys.exit(main())
