// Uses the page of the example web_client as a user does: client.js MODULES CHROMIUM PAGE FOLDER PORT
// PAGE is the file of the page, FOLDER has web_client.js and web_client_bg.wasm. A broker with the password `right` is at
// ws://127.0.0.1:PORT/mqtt. The page connects through a port of this program, which can be down.
const [modules, chromium, file, folder, port] = process.argv.slice(2);
const puppeteer = require(`${modules}/puppeteer-core`);
const assert = require("assert");
const { createServer } = require("http");
const { readFileSync } = require("fs");
const net = require("net");

const FILES = {
    "/": ["text/html", file],
    "/web_client.js": ["text/javascript", `${folder}/web_client.js`],
    "/web_client_bg.wasm": ["application/wasm", `${folder}/web_client_bg.wasm`],
};
const server = createServer((request, response) => {
    const [kind, path] = FILES[request.url] ?? ["text/plain", null];
    response.writeHead(path ? 200 : 404, { "Content-Type": kind });
    response.end(path ? readFileSync(path) : "");
});

/** Forwards connections to the broker. */
class Way {
    sockets = new Set();

    /** Opens the port; a free one the first time. */
    async up() {
        this.listener = net.createServer((client) => {
            const broker = net.connect(port, "127.0.0.1");
            for (const [from, to] of [[client, broker], [broker, client]]) {
                this.sockets.add(from);
                from.on("error", () => {}).on("close", () => to.destroy()).pipe(to);
            }
        });
        await new Promise((resolve) => this.listener.listen(this.port ?? 0, "127.0.0.1", resolve));
        this.port = this.listener.address().port;
    }

    /** Closes the port and cuts all connections. */
    down() {
        this.listener.close();
        this.sockets.forEach((socket) => socket.destroy());
        this.sockets.clear();
    }
}

const way = new Way();

// The functions below get the page first.
const shows = (page, id, text) =>
    page.waitForFunction((id, text) => document.getElementById(id).textContent.includes(text), { timeout: 20000 }, id, text).catch(async (error) => {
        const all = await page.evaluate(() => document.body.innerText.slice(0, 2000));
        throw new Error(`${id} does not show ${JSON.stringify(text)}: ${all}`, { cause: error });
    });
const fill = (page, id, text) => page.evaluate((id, text) => { document.getElementById(id).value = text; }, id, text);
const press = (page, form) => page.click(`#${form} button`);

async function connects(page) {
    await press(page, "subscribe");
    await shows(page, "result", "connect first");
    await fill(page, "url", "mqtt://127.0.0.1");
    await press(page, "connect");
    await shows(page, "status", "ws:// or wss://");
    await fill(page, "url", `ws://127.0.0.1:${way.port}/mqtt`);
    await fill(page, "user", "joe");
    await fill(page, "password", "wrong");
    await press(page, "connect");
    await shows(page, "status", "bad user name or password");
    await fill(page, "password", "right");
    await press(page, "connect");
    await shows(page, "status", "connected");
}

async function exchanges(page) {
    await fill(page, "filter", "a/#/b");
    await press(page, "subscribe");
    await shows(page, "result", "#");
    await fill(page, "filter", "#");
    await press(page, "subscribe");
    await shows(page, "result", "subscribed to #");
    await publish(page, "a/+", "x", "+");
    for (const topic of ["a b/<b>bold</b>/ä/\u202Eright", "/", "<img src=x onerror=alert(1)>"]) {
        await publish(page, topic, `<script>alert("${topic.length}")</script> 日本`, "success");
        await shows(page, "messages", topic);
        await shows(page, "messages", `alert("${topic.length}")`);
    }
    assert.equal(await page.$$eval("#messages b, #messages img, #messages script", (found) => found.length), 0);
    await publish(page, "control", "\u0001\u0002", "success");
    await shows(page, "messages", "01 02");
    await publish(page, "large", "ä".repeat(512 * 1024), "success");
    await shows(page, "messages", "(1048576 bytes)");
    await publish(page, "empty", "", "success");
    await shows(page, "messages", "empty (QoS 1)");
}

async function publish(page, topic, payload, result) {
    await fill(page, "topic", topic);
    await fill(page, "payload", payload);
    await fill(page, "result", "");
    await page.evaluate(() => { document.getElementById("result").textContent = ""; });
    await press(page, "publish");
    await shows(page, "result", result);
}

async function survives(page) {
    way.down();
    await shows(page, "status", "trying again");
    await fill(page, "topic", "while/down");
    await fill(page, "payload", "kept");
    await press(page, "publish");
    await way.up();
    await shows(page, "status", "connected");
    await shows(page, "messages", "while/down");
}

async function lists_only_the_newest(page) {
    await fill(page, "qos", "0");
    for (let n = 0; n < 210; n += 1) {
        await fill(page, "topic", `many/${n}`);
        await press(page, "publish");
    }
    await shows(page, "messages", "many/209");
    assert.equal(await page.$$eval("#messages li", (found) => found.length), 200);
}

async function fits_and_has_a_keyboard(page) {
    for (const width of [320, 1000]) {
        await page.setViewport({ width, height: 600 });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${wide} of ${width}`);
    }
    const order = [];
    await page.focus("#url");
    while (order.at(-1) !== "retain" && order.length < 20) {
        order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent));
        await page.keyboard.press("Tab");
    }
    const expected = "url user password Connect close filter filter-qos Subscribe topic payload qos retain";
    assert.equal(order.join(" "), expected);
    await page.focus("#topic");
    await fill(page, "topic", "by/keyboard");
    await page.keyboard.press("Enter");
    await shows(page, "messages", "by/keyboard");
    await page.click("#close");
    await shows(page, "status", "not connected");
}

async function main() {
    await way.up();
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    try {
        const page = await browser.newPage();
        page.on("pageerror", (error) => { throw error; });
        page.on("dialog", () => { throw new Error("a message ran as a script"); });
        await page.goto(`http://127.0.0.1:${server.address().port}/`);
        await page.waitForFunction(() => document.body.dataset.ready === "yes");
        for (const part of [connects, exchanges, survives, lists_only_the_newest, fits_and_has_a_keyboard]) {
            await part(page);
        }
        console.log("done");
    } finally {
        await browser.close();
        server.close();
        way.down();
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
