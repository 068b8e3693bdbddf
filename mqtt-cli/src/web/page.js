"use strict";
// The page of `mqtt broker --web`. All that comes from clients is shown as text, never as HTML.

const MOST_MESSAGES = 200;
const MOST_TOPICS = 5000;
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
    root: { levels: new Map() },
    topics: 0,
    messages: [],
    arrived: 0,
    paused: false,
    chosen: null,
    dirty: true,
};

// Valid UTF-8 as it is, other bytes as hexadecimal digits.
function shown(payload) {
    const bytes = payload.subarray(0, 2000);
    const more = payload.length > bytes.length ? ` ... (${payload.length} bytes)` : "";
    try {
        return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true }) + more;
    } catch {
        return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ") + more;
    }
}

function learn(topic, text) {
    let place = state.root;
    for (const level of topic.split("/")) {
        if (!place.levels.has(level)) {
            if (state.topics >= MOST_TOPICS) {
                return;
            }
            state.topics += 1;
            place.levels.set(level, { levels: new Map(), count: 0, value: null });
        }
        place = place.levels.get(level);
        place.count += 1;
    }
    place.value = text;
}

function arrived(topic, payload, packet) {
    const text = shown(payload);
    state.arrived += 1;
    learn(topic, text);
    if (!state.paused) {
        state.messages.unshift({ time: new Date(), topic, text, packet });
        state.messages.length = Math.min(state.messages.length, MOST_MESSAGES);
    }
    state.dirty = true;
}

function branch(place, prefix) {
    const list = element("ul");
    for (const [level, below] of place.levels) {
        const topic = prefix === null ? level : `${prefix}/${level}`;
        const item = element("li");
        const row = element("div", "", state.chosen === topic ? "chosen" : "");
        row.append(element("span", level === "" ? "(empty)" : level, "name"));
        row.append(element("span", String(below.count), "count"));
        if (below.value !== null) {
            row.append(element("span", below.value, "value"));
        }
        row.addEventListener("click", () => {
            state.chosen = state.chosen === topic ? null : topic;
            at("publish").topic.value = topic;
            state.dirty = true;
        });
        item.append(row);
        if (below.levels.size > 0) {
            item.append(branch(below, topic));
        }
        list.append(item);
    }
    return list;
}

function show_messages() {
    const chosen = state.chosen;
    const wanted = ({ topic }) => chosen === null || topic === chosen || topic.startsWith(`${chosen}/`);
    const rows = state.messages.filter(wanted).map(({ time, topic, text, packet }) => {
        const row = element("tr");
        const qos = `${packet.qos}${packet.retain ? " retained" : ""}`;
        row.append(element("td", time.toLocaleTimeString()), element("td", topic), element("td", qos), element("td", text));
        return row;
    });
    at("messages").replaceChildren(...rows);
    at("shown").textContent = chosen === null ? `last ${rows.length}` : `below ${chosen}`;
}

function draw() {
    if (state.dirty) {
        state.dirty = false;
        at("tree").replaceChildren(branch(state.root, null));
        at("topics-count").textContent = state.topics >= MOST_TOPICS ? `first ${MOST_TOPICS}` : "";
        show_messages();
    }
    requestAnimationFrame(() => setTimeout(draw, 100));
}

function show_filters() {
    const items = Array.from(state.filters, ([filter, qos]) => {
        const item = element("li");
        const button = element("button", "Unsubscribe");
        button.addEventListener("click", async () => {
            await told(state.client.unsubscribeAsync(filter), `unsubscribed from ${filter}`);
            state.filters.delete(filter);
            show_filters();
        });
        item.append(element("span", filter), element("small", `QoS ${qos}`), button);
        return item;
    });
    at("filters").replaceChildren(...items);
}

async function told(promise, text) {
    try {
        const result = await promise;
        at("told").textContent = text;
        return result;
    } catch (error) {
        at("told").textContent = error.message;
        throw error;
    }
}

async function show_clients() {
    try {
        const clients = await (await fetch("clients")).json();
        const rows = clients.map((client) => {
            const row = element("tr");
            for (const text of [client.id, client.user, client.version, client.address, String(client.subscriptions)]) {
                row.append(element("td", text));
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
            await told(client.subscribeAsync(filter, { qos }), `subscribed to ${filter}`).catch(() => {});
        }
    });
    client.on("close", () => client === state.client && show_state("not connected", false));
    client.on("error", (error) => {
        // Refused: the broker wants a user name and a password.
        if (client === state.client && [0x84, 0x86, 0x87, 0x8c, 4, 5].includes(error.code)) {
            client.end(true);
            at("login").hidden = false;
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
    told(state.client.publishAsync(topic.value, payload.value, options), `published to ${topic.value}`).catch(() => {});
});
at("subscribe").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { filter, qos } = event.target;
    const [wanted, level] = [filter.value, Number(qos.value)];
    await told(state.client.subscribeAsync(wanted, { qos: level }), `subscribed to ${wanted}`);
    state.filters.set(wanted, level);
    show_filters();
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

show_filters();
show_clients();
draw();
connect({});
