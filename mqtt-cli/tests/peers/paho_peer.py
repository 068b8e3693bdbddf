"""The other side of an exchange, by paho-mqtt: paho_peer.py pub|sub PORT VERSION QOS TOPIC [MESSAGE... | COUNT].

Instead of PORT, SCHEME://HOST:PORT?CA with the file of a CA, or unix://PATH.
"""

import os
import sys
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
if action == "pub":
    client.connect(*place)
    client.loop_start()
    for message in rest:
        client.publish(topic, message, int(qos)).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
else:
    left = int(rest[0])

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
        if left == 0:
            client.disconnect()

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect(*place)
    client.loop_forever()
