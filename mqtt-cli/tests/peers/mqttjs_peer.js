// The other side of an exchange, by MQTT.js: mqttjs_peer.js MODULE pub|sub PORT VERSION QOS TOPIC [MESSAGE... | COUNT].
// Instead of PORT, SCHEME://HOST:PORT?CA with the file of a CA.
const [module_path, action, port, version, qosText, topic, ...rest] = process.argv.slice(2);
const mqtt = require(module_path);
const qos = Number(qosText);
const url = new URL(port.includes("://") ? port : `mqtt://127.0.0.1:${port}`);
const client = mqtt.connect({
    protocol: url.protocol.slice(0, -1),
    host: url.hostname,
    port: Number(url.port),
    path: "/mqtt",
    ca: url.search ? require("fs").readFileSync(url.search.slice(1)) : undefined,
    protocolVersion: version === "5" ? 5 : 4,
    clientId: `mqttjs-${action}-${process.pid}`,
    reconnectPeriod: 0,
});
client.on("error", (error) => {
    console.error(error.message);
    process.exit(1);
});
client.on("connect", async () => {
    if (action === "pub") {
        for (const message of rest) {
            await client.publishAsync(topic, message, { qos });
        }
        client.end();
        return;
    }
    let left = Number(rest[0]);
    client.on("message", (topic, payload, packet) => {
        console.log(`${packet.qos} ${topic} ${payload}`);
        left -= 1;
        if (left === 0) {
            client.end();
        }
    });
    await client.subscribeAsync(topic, { qos });
    console.log("subscribed");
});
