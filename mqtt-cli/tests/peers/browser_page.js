// Opens the page of `mqtt broker --web` in headless Chromium and uses it: browser_page.js MODULES CHROMIUM URL [SCREENSHOT].
// It prints what the page shows.
const [modules, chromium, url, screenshot] = process.argv.slice(2);
const puppeteer = require(`${modules}/puppeteer-core`);

async function use(page) {
    page.on("pageerror", (error) => console.error(`page: ${error.message}`));
    await page.setViewport({ width: 1280, height: 720 });
    await page.goto(url);
    const shows = (id, text) => page.waitForFunction(
        (id, text) => document.getElementById(id).textContent.includes(text), {}, id, text);
    await shows("state", "connected");
    await shows("told", "subscribed to #");
    for (const [topic, payload, qos] of [["home/kitchen/temperature", "21.5", "1"], ["home/hall/door", "<b>open</b>", "2"]]) {
        await page.evaluate((topic, payload, qos) => {
            const form = document.getElementById("publish");
            [form.topic.value, form.payload.value, form.qos.value] = [topic, payload, qos];
            form.requestSubmit();
        }, topic, payload, qos);
        await shows("told", `published to ${topic}`);
        await shows("messages", payload);
    }
    await shows("tree", "kitchen");
    await shows("clients", "web-");
    const own = await page.evaluate(() => ({
        rows: Array.from(document.querySelectorAll("#messages tr"), (row) => row.children[1].textContent)
            .filter((topic) => topic.startsWith("home/")),
        markup: document.querySelectorAll("#messages b").length,
        clients: document.querySelectorAll("#clients tr").length,
        login: document.getElementById("login").offsetParent !== null,
    }));
    console.log(`messages: ${own.rows.join(", ")}; markup of payloads: ${own.markup}; clients: ${own.clients}; asks for a login: ${own.login}`);
    await page.evaluate(() => {
        const form = document.getElementById("subscribe");
        form.filter.value = "home/+/door";
        form.requestSubmit();
    });
    await shows("filters", "home/+/door");
    console.log("subscribed");
    if (screenshot) {
        await page.screenshot({ path: screenshot });
    }
}

// A page of another origin, at a port that only this machine has for it.
async function intrude(page) {
    await page.setContent("<p>another page</p>");
    const opened = await page.evaluate((url) => new Promise((resolve) => {
        const socket = new WebSocket(`${url.replace("http", "ws")}mqtt`, "mqtt");
        socket.onopen = () => resolve(true);
        socket.onerror = () => resolve(false);
    }), url);
    console.log(`another page connects: ${opened}`);
}

async function main() {
    const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    try {
        await use(await browser.newPage());
        await intrude(await browser.newPage());
    } finally {
        await browser.close();
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
