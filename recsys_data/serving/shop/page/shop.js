// The demo shop. Shelves come from the public API of serving; events go to the collector in the format of Segment's
// browser snippet. Texts are set as text, never as markup.

const SHELF = 12;
const ASK_MS = 300;
const PATIENCE_MS = 60_000;
const NUMBERS_MS = 2_000;
const RETRY_MS = 3_000;
const LOG_LINES = 8;
const WHY = {
  session: "because of what you looked at",
  similar: "similar to this item",
  model: "fits what you did before",
  content: "new, and like this or what you looked at",
  popular: "popular with everybody",
  popular_by_segment: "popular with visitors like you",
  available: "new in the shop",
  given: "as asked",
};

const $ = (id) => document.getElementById(id);
const state = { collector: "", key: "", visitor: null, cart: [], shown: new Set(), numbers: null, down: false, turn: 0 };

// ---- talking to servers

async function ask(path, body) {
  const headers = state.key ? { Authorization: "Basic " + btoa(unescape(encodeURIComponent(state.key + ":"))) } : {};
  const init = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...init, cache: "no-store" });
  } catch {
    throw new Error("down");
  }
  if (answer.status === 401) throw new Error("locked");
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `${path} answered ${answer.status}`);
  return content;
}

function id(prefix) {
  // `crypto.randomUUID` is missing on pages that are not secure.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return prefix + Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
}

// As analytics.js does it: one message to the path of its kind, as text, so that no preflight is needed.
async function send(kind, message) {
  const now = new Date().toISOString();
  const body = {
    type: kind,
    messageId: id("ajs-next-"),
    anonymousId: state.visitor.anonymous_id,
    userId: state.visitor.user_id || null,
    timestamp: now,
    sentAt: now,
    integrations: {},
    context: {
      library: { name: "recsys-data-demo-shop", version: "1" },
      page: { path: location.pathname, referrer: "", search: "", title: document.title, url: location.href },
      userAgent: navigator.userAgent,
      locale: navigator.language,
      sessionId: state.visitor.session_id,
    },
    ...(state.key ? { writeKey: state.key } : {}),
    ...message,
  };
  const path = `${state.collector}/v1/${kind[0]}`;
  const init = { method: "POST", headers: { "Content-Type": "text/plain" }, body: JSON.stringify(body), keepalive: true };
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Error("collector");
  }
  if (answer.status === 401) throw new Error("locked");
  if (!answer.ok) throw new Error(`The collector answered ${answer.status}: ${(await answer.json()).error}`);
}

function track(event, properties) {
  return send("track", { event, properties });
}

// ---- notices

function notice(text, command) {
  const box = $("notice");
  const nodes = [text];
  if (command) {
    const code = document.createElement("code");
    code.textContent = command;
    nodes.push(" ", code);
  }
  const before = box.textContent;
  if (before !== text + (command ? " " + command : "")) box.replaceChildren(...nodes);
  box.hidden = !text;
}

function explain(error) {
  if (error.message === "locked") {
    notice("");
    if ($("unlock").hidden) {
      $("unlock").hidden = false;
      $("key").focus();
    }
    return;
  }
  if (error.message === "down") {
    state.down = true;
    notice("The server does not answer. The shelves below are those of before; trying again …");
  } else if (error.message === "collector") {
    notice(`The collector at ${state.collector} does not answer: what you do is not recorded.`);
  } else {
    notice(error.message);
  }
}

// What is missing, as far as the numbers say it.
function diagnose() {
  const { events, serving } = state.numbers;
  const served = serving.models.some((one) => one.served);
  if (!events) {
    notice("The lake is empty: no event was stored yet. Events of the demo come within a minute; or send some:",
      "recsys-data simulate --events 3000");
  } else if (!served && serving.catalogue.dataset && !serving.catalogue.items) {
    notice("The item catalogue has no items that may be shown.");
  } else if (!served) {
    notice("No model is trained yet: the shelf shows items in stock, and clicks cannot change it much. Train one:",
      "recsys-data train item_knn");
  } else {
    notice("");
  }
}

// ---- shelves

function price(item) {
  if (item.price === undefined) return "";
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency: item.currency || "EUR" }).format(item.price);
  } catch {
    return `${item.price} ${item.currency || ""}`;
  }
}

function hue(text) {
  let found = 7;
  for (const one of text) found = (found * 31 + one.codePointAt(0)) % 360;
  return found;
}

function initials(text) {
  return text.split(/\s+/).slice(-2).map((word) => word.slice(0, 1)).join("").toUpperCase();
}

async function details(answer) {
  const ids = answer.items.map((one) => one.item_id);
  const found = new Map();
  // Ids with a comma cannot be asked for in a list.
  const askable = ids.filter((one) => !one.includes(","));
  if (askable.length) {
    const content = await ask("/v1/items?ids=" + encodeURIComponent(askable.join(",")));
    for (const item of content.items) found.set(item.item_id, item);
  }
  return ids.map((one) => found.get(one) || { item_id: one });
}

function card(place, item, answer, fresh) {
  const node = $("card").content.firstElementChild.cloneNode(true);
  const find = (name) => node.querySelector("." + name);
  const title = item.title || item.item_id;
  const categories = item.category_path || [];
  const category = categories[categories.length - 1] || item.item_type || "";
  node.dataset.item = item.item_id;
  node.classList.toggle("new", fresh);
  find("picture").textContent = initials(title);
  find("picture").style.setProperty("--hue", hue(categories.join("/") || title));
  find("title").textContent = title;
  find("about").textContent = [item.brand, category].filter(Boolean).join(" · ");
  find("price").textContent = price(item);
  const why = find("why");
  why.textContent = WHY[place.reason] || place.reason;
  if (fresh) {
    const mark = document.createElement("b");
    mark.textContent = "new · ";
    why.prepend(mark);
  }
  const parts = [`score ${place.score.toFixed(3)}`, `propensity ${place.propensity.toFixed(3)}`].map((text) => {
    const part = document.createElement("span");
    part.textContent = text;
    return part;
  });
  find("numbers").append(parts[0], " · ", parts[1]);
  find("numbers").title = "The score of the ranking, and the probability with which the item is at this place.";
  find("open").addEventListener("click", () => open(place, item, answer));
  find("add").addEventListener("click", () => add(place, item, answer));
  find("add").setAttribute("aria-label", `Add ${title} to the cart`);
  return node;
}

async function show(name, answer, before) {
  const items = await details(answer);
  const turn = state.turn;
  const list = $(`${name}-items`);
  const focused = list.contains(document.activeElement) ? document.activeElement.closest(".card")?.dataset.item : null;
  const cards = answer.items.map((place, at) =>
    card(place, items[at], answer, before.size > 0 && !before.has(place.item_id)));
  if (turn !== state.turn) return 0;
  list.replaceChildren(...cards);
  list.setAttribute("aria-busy", "false");
  if (focused) (cards.find((one) => one.dataset.item === focused) || cards[0])?.querySelector(".open").focus();
  $(`${name}-source`).textContent =
    `model ${answer.model}` + (answer.variant ? ` · variant ${answer.variant}` : "") + (answer.fallback ? " · fallback" : "");
  return cards.filter((one) => one.classList.contains("new")).length;
}

async function home({ compare = true } = {}) {
  const turn = state.turn;
  const answer = await ask("/v1/recommend", { ...who(), n: SHELF, scenario: "home" });
  if (turn !== state.turn) return null;
  const before = compare ? state.shown : new Set();
  const fresh = await show("home", answer, before);
  state.shown = new Set(answer.items.map((one) => one.item_id));
  return { answer, fresh };
}

async function similar(item) {
  const answer = await ask("/v1/similar", { ...who(), items: [item.item_id], n: 6, scenario: "item_page" });
  $("similar-title").textContent = `Similar to ${item.title || item.item_id}`;
  $("similar").hidden = !answer.items.length;
  await show("similar", answer, new Set());
}

// ---- what a shopper does

function who() {
  const { user_id, anonymous_id, session_id } = state.visitor;
  return user_id ? { user_id, anonymous_id, session_id } : { anonymous_id, session_id };
}

function about(place, item, answer) {
  const known = { product_id: item.item_id, name: item.title, brand: item.brand, price: item.price, currency: item.currency };
  return {
    ...known,
    position: place.position,
    list_id: answer.scenario,
    recommendation_id: answer.recommendation_id,
    recommendation_model: answer.model,
    recommendation_score: place.score,
    propensity: place.propensity,
    ...(answer.variant ? { recommendation_variant: answer.variant } : {}),
  };
}

function did(text) {
  const line = document.createElement("li");
  const result = document.createElement("small");
  line.append(text, result);
  $("log").prepend(line);
  while ($("log").children.length > LOG_LINES) $("log").lastElementChild.remove();
  return (outcome) => { result.textContent = outcome; };
}

async function open(place, item, answer) {
  const title = item.title || item.item_id;
  const report = did(`You looked at ${title}.`);
  await act(report, item, () => track("Product Clicked", about(place, item, answer)), () => similar(item));
}

async function add(place, item, answer) {
  const report = did(`You put ${item.title || item.item_id} into the cart.`);
  await act(report, item, async () => {
    await track("Product Added", { ...about(place, item, answer), quantity: 1 });
    state.cart.push(about(place, item, answer));
    cart();
  });
}

async function buy() {
  const products = state.cart.map((one) => ({ ...one, quantity: 1 }));
  const report = did(`You bought ${products.length} item${products.length === 1 ? "" : "s"}.`);
  await act(report, { item_id: products[products.length - 1].product_id }, async () => {
    const currency = products.find((one) => one.currency)?.currency;
    await track("Order Completed", { order_id: id("order-"), ...(currency ? { currency } : {}), products });
    state.cart = [];
    cart();
  });
}

function cart() {
  $("cart-count").textContent = `Cart: ${state.cart.length}`;
  $("buy").disabled = !state.cart.length;
}

// Send what was done, wait until answers know of it, then ask for the next shelf.
async function act(report, item, deliver, meanwhile) {
  const turn = ++state.turn;
  const begun = performance.now();
  try {
    await deliver();
    report("sent");
    $("status").textContent = "Sent. The shelf changes as soon as answers know of it …";
    if (meanwhile) await meanwhile();
    const known = await until(item.item_id, begun, turn);
    if (turn !== state.turn) return report(known ? "" : "sent");
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    const found = await home();
    if (!found) return;
    if (!known) {
      report("not stored yet");
      $("status").textContent = "The event is not stored yet: the platform is behind. Click again later.";
      return;
    }
    $("n-click").textContent = `used after ${seconds} s`;
    report(`used after ${seconds} s`);
    $("status").textContent = found.fresh
      ? `The shelf has changed after ${seconds} s: ${found.fresh} new item${found.fresh === 1 ? "" : "s"}.`
      : `Your click was used after ${seconds} s; the shelf is the same.`;
  } catch (error) {
    report("not sent");
    explain(error);
  }
}

// Whether answers know that the visitor met the item last. Asking shows nothing, and so makes no impressions.
async function until(itemId, begun, turn) {
  while (performance.now() - begun < PATIENCE_MS && turn === state.turn) {
    const { items } = await ask("/shop/visitor", who());
    if (items[items.length - 1] === itemId) return true;
    await new Promise((done) => setTimeout(done, ASK_MS));
  }
  return false;
}

async function become(userId) {
  state.turn += 1;
  state.visitor = { user_id: userId || null, anonymous_id: id("demo-"), session_id: id("visit-") };
  state.cart = [];
  state.shown = new Set();
  cart();
  $("similar").hidden = true;
  $("log").replaceChildren();
  $("n-click").textContent = "–";
  $("status").textContent = "Click an item: the shelf changes as soon as answers know of it.";
  $("home-items").setAttribute("aria-busy", "true");
  try {
    await home({ compare: false });
    await send("page", { name: "Demo shop", properties: {} });
  } catch (error) {
    explain(error);
  }
}

// ---- numbers

function seconds({ p50_s: middle, p95_s: most }) {
  return middle === null ? "–" : `${middle.toFixed(1)} / ${most.toFixed(1)} s`;
}

const count = (value) => new Intl.NumberFormat("en").format(value);

function percent(value) {
  return (100 * value).toFixed(1) + " %";
}

// An interval as a picture: from `low` to `high`, a point at the value.
function interval(rate, most) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${percent(rate.low)} to ${percent(rate.high)}`);
  const at = (value) => 4 + 92 * Math.min(1, value / most);
  const bar = document.createElementNS(space, "rect");
  const sizes = { x: at(rate.low), y: 6, height: 8, rx: 4, width: Math.max(2, at(rate.high) - at(rate.low)) };
  for (const [name, value] of Object.entries(sizes)) bar.setAttribute(name, value);
  const point = document.createElementNS(space, "circle");
  for (const [name, value] of Object.entries({ cx: at(rate.value), cy: 10, r: 4 })) point.setAttribute(name, value);
  svg.append(bar, point);
  return svg;
}

function cell(row, className, ...content) {
  const node = document.createElement("td");
  node.className = className;
  node.append(...content);
  row.append(node);
}

function table(outcomes) {
  const rows = outcomes.filter((one) => one.shown);
  const most = Math.max(0.02, ...rows.filter((one) => one.shown >= 50).map((one) => one.click_rate.high));
  return rows.map((one) => {
    const row = document.createElement("tr");
    const place = document.createElement("small");
    place.textContent = [one.scenario, one.variant].filter(Boolean).join(" · ");
    cell(row, "", one.model || "(none)", place);
    cell(row, "number", count(one.shown));
    cell(row, "number", percent(one.click_rate.value));
    cell(row, "", interval(one.click_rate, most));
    return row;
  });
}

function parity(found) {
  // Nothing measures it in this process: there is nothing to show.
  if (!found) return "not measured";
  return found.differences ? `${count(found.differences)} of ${count(found.values)} differ` : `${count(found.values)} values equal`;
}

async function numbers() {
  const found = await ask("/shop/numbers");
  const servedBefore = state.numbers?.serving.models.some((one) => one.served);
  state.numbers = found;
  $("n-stored").textContent = seconds(found.stored);
  $("n-online").textContent = seconds(found.online);
  $("n-answers").textContent = seconds(found.answers);
  $("n-waiting").textContent = count(found.waiting);
  $("n-events").textContent = count(found.events);
  $("n-items").textContent = found.serving.catalogue.dataset ? count(found.serving.catalogue.items) : "all";
  $("n-parity").textContent = parity(found.parity);
  $("ctr").replaceChildren(...table(found.outcomes));
  const back = state.down;
  state.down = false;
  diagnose();
  const served = found.serving.models.some((one) => one.served);
  // What was missing has come: the shelf is asked for again, once.
  if (back || (servedBefore === false && served) || (!state.shown.size && (served || found.serving.catalogue.items))) {
    await home();
  }
}

async function shoppers() {
  const { shoppers: found } = await ask("/shop/shoppers");
  const select = $("shopper");
  if (found.length && select.options.length === 1) {
    for (const one of found) {
      const option = document.createElement("option");
      option.value = one.user_id;
      option.textContent = `${one.user_id} (${one.items} item${one.items === 1 ? "" : "s"} met)`;
      select.append(option);
    }
  }
}

async function watch() {
  for (;;) {
    let wait = NUMBERS_MS;
    if (!document.hidden) {
      try {
        await numbers();
        if ($("shopper").options.length === 1) await shoppers();
      } catch (error) {
        explain(error);
        if (error.message === "locked") return;
        wait = RETRY_MS;
      }
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function start() {
  for (;;) {
    try {
      const settings = await ask("/shop/settings");
      state.collector = settings.collector;
      if (settings.needs_key && !state.key) throw new Error("locked");
      break;
    } catch (error) {
      explain(error);
      if (error.message === "locked") return;
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }
  await become("");
  await watch();
}

$("shopper").addEventListener("change", (event) => become(event.target.value));
$("fresh").addEventListener("click", () => {
  $("shopper").value = "";
  become("");
});
$("buy").addEventListener("click", buy);
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = $("key").value;
  $("unlock").hidden = true;
  start();
});

start();
