// MQTT.js in headless Chromium: browser_peer.js MODULES CHROMIUM URL PROXIED_URL CERTIFICATE.
// MODULES is a folder node_modules with mqtt and puppeteer-core. Connections to URL are left alone, those to PROXIED_URL are cut at any byte.
// The browser accepts the key of the file CERTIFICATE, whoever signed it. The script prints a line for each thing that worked.
const [modules, chromium, url, proxied, certificate] = process.argv.slice(2);
const { X509Certificate, createHash } = require("crypto");
const { readFileSync } = require("fs");
const puppeteer = require(`${modules}/puppeteer-core`);
const bundle = `${modules}/mqtt/dist/mqtt.min.js`;

// What runs in the page: a client whose messages can be awaited.
function prepare() {
    window.open_client = async (url, options) => {
        const client = mqtt.connect(url, { reconnectPeriod: 0, ...options });
        client.received = [];
        client.waiting = [];
        client.connections = 0;
        client.on("message", (topic, payload, packet) => {
            const text = `${packet.qos}${packet.retain ? "r" : ""} ${topic} ${payload}`;
            client.received.push(text);
            client.waiting.forEach((look) => look());
        });
        client.until = (wanted) => new Promise((resolve) => {
            const look = () => wanted(client.received) && resolve(client.received);
            client.waiting.push(look);
            look();
        });
        await new Promise((resolve, reject) => {
            client.on("connect", () => {
                client.connections += 1;
                resolve();
            });
            if (!options.reconnectPeriod) {
                client.on("error", reject);
                client.on("close", () => reject(new Error("the connection is closed")));
            }
        });
        return client;
    };
}

async function page_of(browser) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(`page: ${error.message}`));
    await page.addScriptTag({ path: bundle });
    await page.evaluate(prepare);
    return page;
}

// Each QoS, a retained message, and a will of a tab that is closed.
async function exchange(browser, version) {
    const options = { protocolVersion: version };
    const page = await page_of(browser);
    const got = await page.evaluate(async (url, options) => {
        const client = await open_client(url, options);
        await client.subscribeAsync("browser/a", { qos: 2 });
        for (const qos of [0, 1, 2]) {
            await client.publishAsync("browser/a", `at ${qos}`, { qos });
        }
        await client.publishAsync("browser/kept", "kept", { qos: 1, retain: true });
        await client.until((received) => received.length === 3);
        await client.subscribeAsync(["browser/kept", "browser/will"], { qos: 1 });
        await client.until((received) => received.length === 4);
        window.client = client;
        return client.received;
    }, url, options);
    console.log(`version ${version} received: ${got.join(", ")}`);

    const other = await page_of(browser);
    await other.evaluate(async (url, options) => {
        const will = { topic: "browser/will", payload: "gone", qos: 1 };
        window.client = await open_client(url, { ...options, will });
    }, url, options);
    await other.close();
    const last = await page.evaluate(async () => {
        const received = await window.client.until((received) => received.length === 5);
        await window.client.publishAsync("browser/kept", "", { qos: 1, retain: true });
        await window.client.endAsync();
        return received[4];
    });
    console.log(`version ${version} closed tab: ${last}`);
    await page.close();
}

// Messages at QoS 2 through connections that are cut.
async function reconnect(browser, version) {
    const page = await page_of(browser);
    const { connections, numbers } = await page.evaluate(async (url, proxied, version) => {
        const options = { protocolVersion: version, clean: false, reconnectPeriod: 20 };
        if (version === 5) {
            options.properties = { sessionExpiryInterval: 600 };
        }
        const hearing = await open_client(url, { protocolVersion: version });
        await hearing.subscribeAsync("browser/cut", { qos: 2 });
        const client = await open_client(proxied, { ...options, clientId: `cut-${version}` });
        // If a cut takes PUBCOMP, the repeated PUBREL is answered with reason code 0x92. MQTT.js reports that as an error, although the
        // message was passed on.
        const ended = (error) => {
            if (error.code !== 0x92) {
                throw error;
            }
        };
        const sent = [];
        for (let n = 0; n < 200; n += 1) {
            const text = `${n} ${"x".repeat(100)}`;
            sent.push(client.publishAsync("browser/cut", text, { qos: 2 }).catch(ended));
        }
        await Promise.all(sent);
        await hearing.until((received) => received.length >= 200);
        await hearing.endAsync();
        await client.endAsync(true);
        const numbers = hearing.received.map((text) => Number(text.split(" ")[2]));
        return { connections: client.connections, numbers };
    }, url, proxied, version);
    const once = new Set(numbers).size === 200 && numbers.length === 200;
    console.log(`version ${version} connected again: ${connections > 1}, each message once: ${once}`);
    await page.close();
}

function hash_of_key() {
    const key = new X509Certificate(readFileSync(certificate)).publicKey;
    return createHash("sha256").update(key.export({ type: "spki", format: "der" })).digest("base64");
}

async function main() {
    const browser = await puppeteer.launch({
        executablePath: chromium,
        args: [
            "--no-sandbox",
            "--disable-dev-shm-usage",
            `--ignore-certificate-errors-spki-list=${hash_of_key()}`,
        ],
    });
    try {
        for (const version of [4, 5]) {
            await exchange(browser, version);
            await reconnect(browser, version);
        }
        console.log("done");
    } finally {
        await browser.close();
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
