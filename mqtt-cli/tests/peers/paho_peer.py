"""The other side of an exchange, by paho-mqtt: paho_peer.py pub|sub PORT VERSION QOS TOPIC [MESSAGE... | COUNT].

Instead of PORT, SCHEME://HOST:PORT?CA with the file of a CA, or unix://PATH.
"""

import os
import sys
import threading
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

action, port, version, qos, topic, *rest = sys.argv[1:]
five = version == "5"
url = urlsplit(port if "://" in port else f"mqtt://127.0.0.1:{port}")
transports = {"ws": "websockets", "wss": "websockets", "unix": "unix"}
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=f"paho-{action}-{os.getpid()}",
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
    transport=transports.get(url.scheme, "tcp"),
)
if url.query:
    client.tls_set(url.query)
place = (url.path, 1) if url.scheme == "unix" else (url.hostname, url.port)


def fail(what):
    """Ends the program with an error while a thread still waits."""
    print(what, file=sys.stderr, flush=True)
    os._exit(1)


def in_time(wait):
    """Waits for at most 53 s. The second wait is for a process that was stopped during the first one."""
    return wait(45) or wait(8)


if action == "pub":
    # A client that closes its socket while CONNACK is unread makes the broker's write fail, and the broker may then drop the
    # messages that it has not read.
    accepted = threading.Event()
    client.on_connect = lambda *_: accepted.set()
    client.connect(*place)
    client.loop_start()
    if not in_time(accepted.wait):
        fail("no CONNACK came in time")
    for message in rest:
        publishing = client.publish(topic, message, int(qos))
        if not in_time(lambda span: publishing.wait_for_publish(span) or publishing.is_published()):
            fail(f"a message at QoS {qos} was not acknowledged in time")
    client.disconnect()
    client.loop_stop()
else:
    left = int(rest[0])
    progress = threading.Event()

    def watch():
        while in_time(progress.wait):
            progress.clear()
        fail(f"{left} messages did not come in time")

    threading.Thread(target=watch, daemon=True).start()

    def on_connect(client, *_):
        if five:
            client.subscribe(topic, options=SubscribeOptions(qos=int(qos)))
        else:
            client.subscribe(topic, int(qos))

    def on_subscribe(*_):
        print("subscribed", flush=True)

    def on_message(client, _, message):
        global left
        print(message.qos, message.topic, message.payload.decode(), flush=True)
        left -= 1
        progress.set()
        if left == 0:
            client.disconnect()

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect(*place)
    client.loop_forever()
