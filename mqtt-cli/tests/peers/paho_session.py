"""A client whose session goes on over reconnects, by paho-mqtt: paho_session.py pub|sub PORT[,PORT..]. It tries the ports by turns.

pub publishes numbers until its input ends: odd ones to n/1 at QoS 1, even ones to n/2 at QoS 2, each tenth retained to `kept` at QoS 1. It
prints `acknowledged TOPIC NUMBER` for each that is acknowledged, in the end `end NUMBER` with the last one. sub subscribes to n/2 and end
at QoS 2, prints `subscribed` and then topic and payload of each message.
"""

import itertools
import queue
import sys
import threading
import time

import paho.mqtt.client as mqtt

WINDOW = 20
action, ports = sys.argv[1], itertools.cycle(int(port) for port in sys.argv[2].split(","))
acknowledged = queue.Queue()
over = threading.Event()
may_publish = threading.Lock()
may_publish.acquire()


class Client(mqtt.Client):
    """paho-mqtt 2.2 forgets at a second reconnect without a CONNACK that PUBREC came: it sends PUBLISH again, and the message is doubled."""

    is_connected_now = False

    def _messages_reconnect_reset_out(self):
        released = [message for message in self._out_messages.values() if message.state == mqtt.mqtt_ms_resend_pubrel]
        super()._messages_reconnect_reset_out()
        for message in released:
            message.state = mqtt.mqtt_ms_resend_pubrel

    def _handle_connack(self):
        """What is published before this has returned is sent before the messages that are sent again, and so out of order."""
        result = super()._handle_connack()
        if result == mqtt.MQTT_ERR_SUCCESS:
            may_publish.release()
            self.is_connected_now = True
        return result


def network():
    while True:
        try:
            client.connect("127.0.0.1", next(ports))
            while client.loop(0.05) == mqtt.MQTT_ERR_SUCCESS:
                pass
        except OSError:
            pass
        # It is held while there is no connection.
        if client.is_connected_now:
            may_publish.acquire()
            client.is_connected_now = False
        time.sleep(0.02)


def publish_all():
    number = 0
    published = {}
    while published or not over.is_set():
        if len(published) < WINDOW and not over.is_set():
            number += 1
            topic, qos = ("n/1", 1) if number % 2 else ("n/2", 2)
            if number % 10 == 0:
                topic, qos = "kept", 1
            with may_publish:
                info = client.publish(topic, str(number), qos, retain=topic == "kept")
            published[info.mid] = (topic, number)
        else:
            print("acknowledged", *published.pop(acknowledged.get()), flush=True)
    print("end", number, flush=True)


def on_connect(client, userdata, flags, reason, properties):
    if action == "sub" and not reason.is_failure and not flags.session_present:
        client.subscribe([("n/2", 2), ("end", 2)])


client = Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho-{action}", clean_session=False, protocol=mqtt.MQTTv311
)
client.on_connect = on_connect
client.on_publish = lambda client, userdata, mid, reason, properties: acknowledged.put(mid)
client.on_subscribe = lambda *_: print("subscribed", flush=True)
client.on_message = lambda client, userdata, message: print(message.topic, message.payload.decode(), flush=True)
threading.Thread(target=network, daemon=True).start()
if action == "pub":
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    publish_all()
else:
    sys.stdin.read()
