"""The other side of an exchange, by paho-mqtt: paho_peer.py pub|sub PORT VERSION QOS TOPIC [MESSAGE... | COUNT]."""

import os
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

action, port, version, qos, topic, *rest = sys.argv[1:]
five = version == "5"
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=f"paho-{action}-{os.getpid()}",
    protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
)
if action == "pub":
    client.connect("127.0.0.1", int(port))
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
    client.connect("127.0.0.1", int(port))
    client.loop_forever()
