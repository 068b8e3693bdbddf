"use strict";
// The page of `mqtt broker --web`. All that comes from clients is shown as text, never as HTML.

const MOST_MESSAGES = 200;
const MOST_TOPICS = 5000;
const MOST_OPEN = 100;
const MOST_OF_TOPIC = 300;
const CLIENTS_EVERY = 2000;
const at = (id) => document.getElementById(id);
const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text ?? "";
    if (className) {
        made.className = className;
    }
    return made;
};

const state = {
    client: null,
    filters: new Map([["#", 0]]),
    root: place_of("", null),
    topics: 0,
    // The places of the tree that changed since they were drawn.
    changed: new Set(),
    messages: [],
    arrived: 0,
    paused: false,
    // The topic below which messages are shown, and its place; null shows all.
    chosen: null,
    chosen_place: null,
    dirty: true,
};

// Control characters, and those that change the direction of a text, as escapes: a topic is not to look like another one.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const visible = (text) => text.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

// The beginning of a long topic.
const brief = (topic) => visible(topic.length > MOST_OF_TOPIC ? `${topic.slice(0, MOST_OF_TOPIC)} ...` : topic);

// Valid UTF-8 as it is, other bytes as hexadecimal digits.
function shown(payload) {
    const bytes = payload.subarray(0, 2000);
    const more = payload.length > bytes.length ? ` ... (${payload.length} bytes)` : "";
    try {
        return visible(new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true })) + more;
    } catch {
        return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ") + more;
    }
}

// A place of the tree. Its element is made when it is shown first.
function place_of(topic, parent) {
    return { topic, parent, levels: new Map(), count: 0, value: null, open: null, drawn: null };
}

function learn(topic, text) {
    let place = state.root;
    let length = -1;
    for (const level of topic.split("/")) {
        length += level.length + 1;
        if (!place.levels.has(level)) {
            if (state.topics >= MOST_TOPICS) {
                return;
            }
            state.topics += 1;
            place.levels.set(level, place_of(topic.slice(0, length), place));
            state.changed.add(place);
        }
        place = place.levels.get(level);
        place.count += 1;
        state.changed.add(place);
    }
    place.value = text;
}

function arrived(topic, payload, packet) {
    const text = shown(payload);
    state.arrived += 1;
    learn(topic, text);
    if (!state.paused) {
        const { qos, retain } = packet;
        state.messages.unshift({ time: new Date(), topic, text, qos, retain, row: null });
        state.messages.length = Math.min(state.messages.length, MOST_MESSAGES);
        state.dirty = true;
    }
}

// Until the user decides, a place with many places below it is closed.
const is_open = (place) => place.open ?? place.levels.size <= MOST_OPEN;

// Makes the element of a place.
function draw_place(place, level) {
    const [item, fold, row, below] = [element("li"), element("button", "", "fold"), element("button", "", "row"), element("ul")];
    const [count, value] = [element("span", "", "count"), element("span", "", "value")];
    fold.type = row.type = "button";
    row.append(element("span", level === "" ? "(empty)" : visible(level), "name"), count, value);
    row.addEventListener("click", () => choose(place));
    fold.addEventListener("click", () => {
        place.open = !is_open(place);
        state.changed.add(place);
    });
    item.append(fold, row, below);
    place.drawn = { item, fold, row, count, value, below };
    return item;
}

// Brings the element of a place up to date. Places below a closed one are drawn when it is opened.
function update(place) {
    const { fold, row, count, value, below } = place.drawn;
    if (place !== state.root) {
        count.textContent = String(place.count);
        value.textContent = place.value ?? "";
        row.classList.toggle("chosen", state.chosen === place.topic);
        row.setAttribute("aria-pressed", String(state.chosen === place.topic));
        fold.hidden = place.levels.size === 0;
        fold.textContent = is_open(place) ? "\u25be" : "\u25b8";
        fold.ariaLabel = `${is_open(place) ? "close" : "open"} ${place.topic}`;
        fold.setAttribute("aria-expanded", String(is_open(place)));
    }
    below.hidden = place !== state.root && !is_open(place);
    if (!below.hidden) {
        for (const [level, child] of place.levels) {
            if (child.drawn === null) {
                below.append(draw_place(child, level));
                update(child);
            }
        }
    }
}

function choose(place) {
    const before = state.chosen_place;
    state.chosen_place = before === place ? null : place;
    state.chosen = state.chosen_place?.topic ?? null;
    [place, before].filter(Boolean).forEach((one) => state.changed.add(one));
    at("publish").topic.value = place.topic;
    state.dirty = true;
}

function row_of(message) {
    const { time, topic, text, qos, retain } = message;
    const row = element("tr");
    row.append(element("td", time.toLocaleTimeString()), element("td", brief(topic)));
    row.append(element("td", `${qos}${retain ? " retained" : ""}`), element("td", text));
    return row;
}

function show_messages() {
    const chosen = state.chosen;
    const wanted = ({ topic }) => chosen === null || topic === chosen || topic.startsWith(`${chosen}/`);
    const rows = state.messages.filter(wanted).map((message) => (message.row ??= row_of(message)));
    at("messages").replaceChildren(...rows);
    at("shown").textContent = chosen === null ? `last ${rows.length}` : `below ${brief(chosen)}`;
}

function draw() {
    for (const place of state.changed) {
        if (place.drawn !== null) {
            update(place);
        }
    }
    state.changed.clear();
    at("topics-count").textContent = state.topics >= MOST_TOPICS ? `first ${MOST_TOPICS}` : "";
    if (state.dirty) {
        state.dirty = false;
        show_messages();
    }
    setTimeout(() => requestAnimationFrame(draw), 100);
}

function show_filters() {
    const items = Array.from(state.filters, ([filter, qos]) => {
        const item = element("li");
        const button = element("button", "Unsubscribe");
        button.addEventListener("click", async () => {
            if (await told(state.client.unsubscribeAsync(filter), `unsubscribed from ${filter}`)) {
                state.filters.delete(filter);
                show_filters();
            }
        });
        item.append(element("span", visible(filter)), element("small", `QoS ${qos}`), button);
        return item;
    });
    at("filters").replaceChildren(...items);
}

// Shows the end of an action. Returns whether it succeeded.
async function told(promise, text) {
    if (!state.client.connected) {
        at("told").textContent = "waits for the connection";
    }
    try {
        await promise;
        at("told").textContent = visible(text);
        return true;
    } catch (error) {
        at("told").textContent = visible(error.message);
        return false;
    }
}

async function show_clients() {
    try {
        const clients = await (await fetch("clients")).json();
        const rows = clients.map((client) => {
            const row = element("tr");
            for (const text of [client.id, client.user, client.version, client.address, String(client.subscriptions)]) {
                row.append(element("td", visible(text ?? "")));
            }
            return row;
        });
        at("clients").replaceChildren(...rows);
        at("clients-count").textContent = String(clients.length);
    } catch {
        at("clients-count").textContent = "unknown";
    }
    setTimeout(show_clients, CLIENTS_EVERY);
}

function show_state(text, on) {
    at("state").textContent = text;
    at("state").className = on ? "on" : "off";
}

function connect(credentials) {
    state.client?.end(true);
    show_state("connecting", false);
    const client = mqtt.connect(`ws://${location.host}/mqtt`, {
        ...credentials,
        protocolVersion: 5,
        clientId: `web-${crypto.randomUUID().slice(0, 8)}`,
        reconnectPeriod: 1000,
        resubscribe: false,
        // The others are timers of a worker, which the policy of this page does not allow.
        timerVariant: "native",
    });
    state.client = client;
    client.on("connect", async () => {
        show_state("connected", true);
        at("login").hidden = true;
        for (const [filter, qos] of state.filters) {
            await told(client.subscribeAsync(filter, { qos }), `subscribed to ${filter}`);
        }
    });
    let refused = false;
    // The reason of a refusal stays.
    client.on("close", () => client === state.client && !refused && show_state("not connected", false));
    client.on("error", (error) => {
        // Refused: the broker wants a user name and a password.
        if (client === state.client && [0x84, 0x86, 0x87, 0x8c, 4, 5].includes(error.code)) {
            refused = true;
            client.end(true);
            at("login").hidden = false;
            at("login").user.focus();
            show_state(error.message, false);
        }
    });
    client.on("message", arrived);
}

at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    const { user, password } = event.target;
    connect({ username: user.value, password: password.value });
});
at("publish").addEventListener("submit", (event) => {
    event.preventDefault();
    const { topic, payload, qos, retain } = event.target;
    const options = { qos: Number(qos.value), retain: retain.checked };
    told(state.client.publishAsync(topic.value, payload.value, options), `published to ${topic.value}`);
});
at("subscribe").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { filter, qos } = event.target;
    const [wanted, level] = [filter.value, Number(qos.value)];
    if (await told(state.client.subscribeAsync(wanted, { qos: level }), `subscribed to ${wanted}`)) {
        state.filters.set(wanted, level);
        show_filters();
    }
});
at("pause").addEventListener("click", (event) => {
    state.paused = !state.paused;
    event.target.textContent = state.paused ? "Go on" : "Pause";
});
at("clear").addEventListener("click", () => {
    state.messages = [];
    state.dirty = true;
});
setInterval(() => {
    at("rate").textContent = `${state.arrived} messages/s`;
    state.arrived = 0;
}, 1000);

state.root.drawn = { below: element("ul") };
at("tree").append(state.root.drawn.below);
show_filters();
show_clients();
draw();
connect({});
