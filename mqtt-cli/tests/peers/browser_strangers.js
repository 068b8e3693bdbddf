// Uses the page of `mqtt broker --web` beside clients that mean harm: browser_strangers.js MODULES CHROMIUM URL. The broker has a user
// `page` with the password `secret`, who may read and write everything below `open` and write to no other topic. When the script prints
// `restart`, the caller starts the broker again and writes a line.
const [modules, chromium, url] = process.argv.slice(2);
const puppeteer = require(`${modules}/puppeteer-core`);

const shows = (page, id, text) => page.waitForFunction(
    (id, text) => document.getElementById(id).textContent.includes(text), {}, id, text);
const text_of = (page, id) => page.evaluate((id) => document.getElementById(id).textContent, id);

async function log_in(page, password) {
    await page.waitForSelector("#login:not([hidden]) input[name=user]:focus");
    await page.keyboard.type("page");
    await page.keyboard.press("Tab");
    await page.keyboard.type(password);
    await page.keyboard.press("Enter");
}

async function use_login(page) {
    await log_in(page, "wrong");
    await page.waitForFunction(() => document.getElementById("login").hidden === false
        && /refused|not authorized|bad user/i.test(document.getElementById("state").textContent));
    // The next attempt begins with empty fields.
    await page.evaluate(() => {
        const { user, password } = document.getElementById("login");
        [user.value, password.value] = ["", ""];
        user.focus();
    });
    await log_in(page, "secret");
    await shows(page, "state", "connected");
    await page.waitForFunction(() => document.getElementById("state").className === "on");
    await page.evaluate(() => {
        const form = document.getElementById("publish");
        [form.topic.value, form.payload.value, form.qos.value] = ["closed/door", "x", "1"];
        form.requestSubmit();
    });
    await page.waitForFunction(() => /not authorized/i.test(document.getElementById("told").textContent));
    console.log("logged in, and told what is not allowed");
}

// Topics and payloads that are not to be taken for a part of the page.
async function be_hostile(page) {
    await page.evaluate(async () => {
        const send = (topic, payload) => state.client.publishAsync(`open/${topic}`, payload, { qos: 1 });
        await send("<script>hacked=1</script>/<img src=x onerror='hacked=1'>", "<img src=x onerror='hacked=1'>");
        await send("__proto__/constructor", "__proto__");
        await send("\u202egnp.exe", "\u202e\u0000\u001b[2J");
        await send("binary", new Uint8Array([0, 255, 128, 10]));
        await send("large", "A".repeat(1000000));
        await send(`long/${"x".repeat(20000)}`, "long");
        await send(Array(60).fill("deep").join("/"), "deep");
        await Promise.all(Array.from({ length: 6000 }, (_, n) => send(`many/${n}`, String(n))));
    });
    await page.waitForFunction(() => state.topics === MOST_TOPICS && state.changed.size === 0);
    const seen = await page.evaluate(() => ({
        hacked: window.hacked !== undefined,
        elements: document.querySelectorAll("main script, main img, main b").length,
        overridden: document.querySelector("main").textContent.includes("\u202e"),
        escaped: document.getElementById("tree").textContent.includes("\\u202egnp.exe"),
        bytes: Array.from(document.querySelectorAll("#tree .value"), (one) => one.textContent).includes("00 ff 80 0a"),
        small: document.querySelectorAll("*").length < 3000,
    }));
    console.log(JSON.stringify(seen));
}

async function use_keys_and_a_small_window(page) {
    const many = "//button[contains(@class, 'row')][span[text()='many']]";
    const row = await page.waitForSelector(`xpath/${many}`);
    await row.focus();
    await page.keyboard.press("Enter");
    const topic = await page.evaluate(() => document.getElementById("publish").topic.value);
    const rows = () => page.evaluate(() => document.querySelectorAll("#tree li").length);
    const before = await rows();
    const fold = await page.waitForSelector(`xpath/${many}/../button[contains(@class, 'fold')]`);
    await fold.focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction((before) => document.querySelectorAll("#tree li").length > before + 1000, {}, before);
    await page.setViewport({ width: 360, height: 640 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    console.log(`chosen: ${topic}; width: ${wide}`);
}

async function connect_again(page) {
    await page.evaluate(() => { document.getElementById("told").textContent = ""; });
    console.log("restart");
    await new Promise((resolve) => process.stdin.once("data", resolve));
    // A message that is published before would not come back.
    await shows(page, "told", "subscribed to #");
    await page.evaluate(async () => {
        document.getElementById("clear").click();
        const form = document.getElementById("publish");
        [form.topic.value, form.payload.value, form.qos.value] = ["open/again", "after the restart", "1"];
        form.requestSubmit();
    });
    await shows(page, "told", "published to open/again");
    // The chosen part of the tree is another one.
    await page.evaluate(() => document.querySelector("#tree .chosen").click());
    await shows(page, "messages", "after the restart");
    console.log("connected again");
}

async function main() {
    const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    try {
        const page = await browser.newPage();
        page.on("pageerror", (error) => console.log(`page: ${error.message}`));
        await page.goto(url);
        await use_login(page);
        await be_hostile(page);
        await use_keys_and_a_small_window(page);
        await connect_again(page);
    } finally {
        await browser.close();
    }
    process.exit(0);
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
