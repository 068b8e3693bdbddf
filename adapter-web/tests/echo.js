// Opens a page in headless Chromium: echo.js MODULES CHROMIUM PAGE FOLDER FRAGMENT...
// PAGE is the file of the page, FOLDER has web_echo.js and web_echo_bg.wasm. They are served on a free port of 127.0.0.1. The page is opened
// once for each FRAGMENT, which is the part of its address behind `#`. Prints its paragraphs.
const [modules, chromium, file, folder, ...fragments] = process.argv.slice(2);
const puppeteer = require(`${modules}/puppeteer-core`);
const { createServer } = require("http");
const { readFileSync } = require("fs");

const FILES = {
    "/": ["text/html", file],
    "/web_echo.js": ["text/javascript", `${folder}/web_echo.js`],
    "/web_echo_bg.wasm": ["application/wasm", `${folder}/web_echo_bg.wasm`],
};

const server = createServer((request, response) => {
    const [kind, path] = FILES[request.url] ?? ["text/plain", null];
    response.writeHead(path ? 200 : 404, { "Content-Type": kind });
    response.end(path ? readFileSync(path) : "");
});

async function show(browser, fragment) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(`page: ${error.message}`));
    page.on("console", (message) => console.error(`console: ${message.text()}`));
    await page.goto(`http://127.0.0.1:${server.address().port}/#${fragment}`);
    await page.waitForFunction(() => document.body.textContent.includes("done"), { timeout: 60000 });
    const lines = await page.evaluate(() => Array.from(document.querySelectorAll("p"), (p) => p.textContent));
    console.log(lines.join("\n"));
    await page.close();
}

async function main() {
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    try {
        for (const fragment of fragments) {
            await show(browser, fragment);
        }
    } finally {
        await browser.close();
        server.close();
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
