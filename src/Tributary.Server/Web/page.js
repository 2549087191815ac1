"use strict";
// One page over the collector's own answers. Texts of markets are only ever put in as text.

const $ = id => document.getElementById(id);
const main = $("main");
let looks = [], prices = {}, sort = { by: "rate", down: true }, filter = "", stop = () => {};

// ---- small helpers

function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props))
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) node.setAttribute(key, value);
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

function svg(name, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

function age(text, now) {
  if (!text) return "–";
  const seconds = Math.max(0, (new Date(now) - new Date(text)) / 1000);
  return seconds < 10 ? seconds.toFixed(1) + " s" : seconds < 120 ? seconds.toFixed(0) + " s"
    : seconds < 7200 ? (seconds / 60).toFixed(0) + " min" : seconds < 172800 ? (seconds / 3600).toFixed(0) + " h" : (seconds / 86400).toFixed(0) + " d";
}

/** Prices from 0 to 1 as a line, or nothing. */
function line(values, kind, label) {
  if (values.length < 2) return el("span", { class: "dim" }, "–");
  const least = Math.min(...values), most = Math.max(...values), span = most - least || 1;
  const path = values.map((value, i) => `${i ? "L" : "M"}${(100 * i / (values.length - 1)).toFixed(2)} ${(28 - 26 * (value - least) / span).toFixed(2)}`).join("");
  return svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": label, ...kind }, svg("path", { d: path }));
}

// ---- asking

const headers = () => sessionStorage.token ? { Authorization: "Bearer " + sessionStorage.token } : {};

async function ask(path, signal) {
  const response = await fetch(path, { headers: headers(), signal });
  if (response.status === 401) { await knock(); return ask(path, signal); }
  if (!response.ok) throw new Error((await response.json()).error ?? response.statusText);
  return response;
}

let knocking = null;
/** The token is typed in once, and kept for this tab alone. */
const knock = () => knocking ??= new Promise(done => {
  $("door").addEventListener("close", () => { sessionStorage.token = $("token").value; $("token").value = ""; knocking = null; done(); }, { once: true });
  $("door").showModal();
});

/** Server-sent events by fetch, which can send the token. */
async function listen(path, signal, heard) {
  const reader = (await ask(path, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const kind = /^event: (.*)$/m.exec(part), data = /^data: (.*)$/m.exec(part);
      if (kind && data) heard(kind[1], JSON.parse(data[1]));
    }
  }
}

// ---- views

const now = () => looks[looks.length - 1];

/** What was counted of each market a second, over the last looks. */
function rates() {
  const last = now(), first = looks[0], seconds = (new Date(last.at) - new Date(first.at)) / 1000;
  const before = new Map(first.markets.map(market => [market.slug, market]));
  const rows = market => market ? market.trades + market.books + market.deltas : 0;
  return new Map(last.markets.map(market => [market.slug, seconds > 0 ? Math.max(0, rows(market) - rows(before.get(market.slug))) / seconds : 0]));
}

const cards = entries => el("dl", { class: "cards" }, ...entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

function table(heads, rows, label) {
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

const head = (text, kind) => el("th", { scope: "col", class: kind }, text);

function overview() {
  const status = now(), rate = [...rates().values()].reduce((sum, one) => sum + one, 0);
  const gaps = new Map();
  for (const market of status.markets) for (const gap of market.gaps) gaps.set(gap.cause, (gaps.get(gap.cause) ?? 0) + 1);
  return [
    el("h2", {}, "How it is"),
    status.reasons.length || status.alerts.length
      ? el("ul", {}, ...status.reasons.map(reason => el("li", {}, reason.detail)), ...status.alerts.map(alert => el("li", { class: "none" }, "alert: " + alert.message)))
      : el("p", { class: "good" }, "All is well."),
    cards([
      ["Markets", number(status.markets.length)], ["Rows a second", number(rate, 1)],
      ["Requests", `${number(status.requests)} (${number(status.requests_failed)} failed)`],
      ["Connections open", `${status.connections_open} of ${status.connections}`],
      ["Clock ahead", status.clock_skew_seconds === null ? "–" : number(status.clock_skew_seconds, 1) + " s"],
      ["Disk free", status.disk_free_bytes === null ? "–" : number(status.disk_free_bytes / 1e9, 1) + " GB"],
      ["Waiting for QuestDB", number(status.outbox.rows) + " rows"], ["Running for", age(status.started, status.at)],
    ]),
    el("h2", {}, "Open gaps"),
    gaps.size ? el("ul", {}, ...[...gaps].map(([cause, count]) => el("li", {}, `${count} ${cause}`))) : el("p", {}, "None."),
    el("h2", {}, "Last errors"),
    status.errors.length ? el("ul", {}, ...status.errors.map(error => el("li", {}, `${error.endpoint}, ${age(error.at, status.at)} ago: ${error.detail}`))) : el("p", {}, "None."),
  ];
}

function markets() {
  const status = now(), rate = rates();
  const value = {
    slug: market => market.slug, rate: market => rate.get(market.slug), trade: market => market.last_trade ?? "",
    book: market => market.last_book ?? "", verdict: market => market.verdict ?? "", gaps: market => market.gaps.length,
  };
  const shown = status.markets.filter(market => market.slug.includes(filter)).sort((one, other) => {
    const a = value[sort.by](one), b = value[sort.by](other);
    return a === b ? one.slug < other.slug ? -1 : 1 : (a < b ? -1 : 1) * (sort.down ? -1 : 1);
  });
  const column = (by, text, kind) => el("th", { scope: "col", class: kind, "aria-sort": sort.by === by ? (sort.down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", "data-sort": by, onclick: () => { sort = { by, down: sort.by === by ? !sort.down : by !== "slug" }; draw().then(() => main.querySelector(`[data-sort=${by}]`).focus()); } }, text));
  const rows = shown.slice(0, 200).map(market => el("tr", {},
    el("th", { scope: "row" }, el("a", { href: "#/market/" + encodeURIComponent(market.slug) }, market.slug)),
    el("td", { class: "phone-off" }, line(prices[market.slug] ?? [], { width: 100, height: 30 }, `last prices of ${market.slug}`)),
    el("td", { class: "n" }, number(rate.get(market.slug), 1)), el("td", { class: "n" }, age(market.last_trade, status.at)),
    el("td", { class: "n" }, age(market.last_book, status.at)),
    el("td", { class: market.verdict === "verified" ? "good" : market.verdict === "mismatched" ? "none" : "" }, market.verdict ?? "–"),
    el("td", { class: market.gaps.length ? "none" : "" }, market.gaps.length ? `${market.gaps.length} ${market.gaps[0].cause}` : "none")));
  return [
    el("h2", {}, "Markets"),
    el("label", {}, "Filter ", el("input", { id: "filter", type: "search", value: filter, oninput: event => { filter = event.target.value; draw().then(() => { const box = $("filter"); box.focus(); box.setSelectionRange(filter.length, filter.length); }); } })),
    el("p", { class: "dim" }, shown.length > 200 ? `The first 200 of ${shown.length}: filter to see others.` : `${shown.length} markets.`),
    table([column("slug", "Market"), el("th", { scope: "col", class: "phone-off" }, "Prices"), column("rate", "Rows/s", "n"), column("trade", "Trade", "n"), column("book", "Book", "n"), column("verdict", "Verdict"), column("gaps", "Gaps")], rows, "Markets"),
  ];
}

function ladder(outcome, book) {
  const side = (name, levels) => levels.map(([price, size]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "n" }, price.toFixed(4)), el("td", { class: "n" }, number(size, 2))));
  return el("section", {}, el("h3", {}, outcome),
    el("p", { class: book.verdict === "verified" ? "good" : "dim" }, book.verdict + (book.why ? ": " + book.why : book.at ? ", last changed " + book.at.slice(11, 19) : "")),
    table([head("Side"), head("Price", "n"), head("Shares", "n")], [...side("ask", [...book.asks].reverse()), ...side("bid", book.bids)], "Depth of " + outcome));
}

async function market(slug) {
  const abort = new AbortController();
  stop = () => abort.abort();
  const found = await (await ask("/web/market?slug=" + encodeURIComponent(slug), abort.signal)).json();
  const outcomes = found.books.map(one => one.outcome);
  let trades = found.trades, outcome = outcomes[0] ?? "";
  const chart = el("div", {}), ladders = el("div", { class: "ladders" }), list = el("div", {});
  const choice = el("select", { id: "outcome", onchange: event => { outcome = event.target.value; drawTrades(); } }, ...outcomes.map(name => el("option", {}, name)));
  const drawTrades = () => {
    const own = trades.filter(trade => trade.outcome === outcome);
    chart.replaceChildren(line(own.map(trade => trade.price), { class: "chart" }, own.length ? `price of ${outcome}: the last is ${own[own.length - 1].price}` : "no trades"));
    list.replaceChildren(table([head("At"), head("Outcome"), head("Taker"), head("Price", "n"), head("Shares", "n")],
      trades.slice(-20).reverse().map(trade => el("tr", {}, el("td", {}, trade.at.slice(0, 19).replace("T", " ")), el("td", {}, trade.outcome), el("td", {}, trade.side), el("td", { class: "n" }, String(trade.price)), el("td", { class: "n" }, number(trade.size, 2)))), "Trades"));
  };
  const drawBooks = books => ladders.replaceChildren(...books.map(one => ladder(one.outcome, one.book)));
  drawTrades();
  drawBooks(found.books);
  main.replaceChildren(el("h2", {}, found.question), el("p", { class: "dim" }, `${found.slug}, ${found.status}`), el("h2", {}, "Price"), el("label", {}, "Outcome ", choice), chart, el("h2", {}, "Depth"), ladders, el("h2", {}, "Latest trades"), list);
  while (!abort.signal.aborted) {
    try {
      await listen("/web/events?slug=" + encodeURIComponent(slug), abort.signal, (kind, value) => {
        if (kind === "books") drawBooks(value);
        else if (kind === "trades") {
          // A trade may be read late: it stands where it belongs.
          trades = [...trades, ...value].sort((one, other) => one.at < other.at ? -1 : one.at > other.at ? 1 : 0).slice(-200);
          drawTrades();
        }
      });
    } catch { /* asked anew below */ }
    await new Promise(done => setTimeout(done, 2000));
  }
}

const words = { w: "whole", p: "partly in a gap", n: "nothing" };

async function coverage() {
  const found = await (await ask("/web/calendar")).json();
  const day = i => new Date(new Date(found.first_day).getTime() + i * 86400000).toISOString().slice(0, 10);
  const minute = i => new Date(new Date(found.first_minute).getTime() + i * 60000).toISOString().slice(11, 16);
  const kind = letter => letter === "n" ? "x" : letter;
  const hours = [];
  for (let i = 0; i < found.minutes.length; i += 60) {
    const part = found.minutes.slice(i, i + 60), count = letter => [...part].filter(one => one === letter).length;
    hours.push(el("span", {}, minute(i)), el("span", { class: "bar", role: "img", "aria-label": `from ${minute(i)}: ${count("w")} minutes whole, ${count("p")} partly, ${count("n")} nothing` },
      ...[...part].map((letter, j) => el("i", { class: kind(letter), title: `${minute(i + j)} ${words[letter]}` }))));
  }
  return [
    el("h2", {}, "By day"),
    el("p", {}, "Green (w): no gap of any market. Amber (p): a part lies in a gap of some market that nothing healed, or before it was collected. Red (n): every market lies in gaps all the time, or none was collected yet. UTC."),
    el("ul", { class: "calendar" }, ...[...found.days].map((letter, i) => el("li", { class: kind(letter), title: `${day(i)}: ${words[letter]}` }, letter))),
    el("h2", {}, "By minute, the last 24 hours"),
    el("div", { class: "hours" }, ...hours),
  ];
}

async function gaps() {
  const found = await (await ask("/web/gaps")).json(), status = now();
  return [
    el("h2", {}, "Alerts"),
    status.alerts.length ? el("ul", {}, ...status.alerts.map(alert => el("li", {}, `${alert.rule} ${alert.subject}, for ${age(alert.since, status.at)}: ${alert.message}`))) : el("p", {}, "None fires."),
    el("h2", {}, "Gaps of the last seven days"),
    found.length ? table([head("Market"), head("Stream"), head("Cause"), head("Since"), head("Until"), head("Healed by")],
      found.map(gap => el("tr", {}, el("th", { scope: "row" }, gap.market), el("td", {}, gap.stream), el("td", {}, gap.cause), el("td", {}, gap.since.slice(0, 19).replace("T", " ")),
        el("td", { class: gap.until ? "" : "none" }, gap.until ? gap.until.slice(0, 19).replace("T", " ") : "open"), el("td", {}, gap.healed_by ?? "–"))), "Gaps") : el("p", {}, "None."),
  ];
}

// ---- what is shown

const views = { "": overview, markets, coverage, gaps };
let shown = null;

async function draw() {
  const [, name, slug] = location.hash.split("/");
  const view = views[name ?? ""] ?? overview;
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === "#/" + (name ?? "")) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  if (name === "market") {
    if (shown !== location.hash) { shown = location.hash; stop(); market(decodeURIComponent(slug)).catch(failed); }
    return;
  }
  if (shown !== location.hash) stop();
  shown = location.hash;
  // What is at hand is drawn at once, so that nothing typed meanwhile is lost.
  const made = view(), parts = made instanceof Promise ? await made : made;
  if (shown === location.hash) main.replaceChildren(...parts);
}

const failed = error => { if (error.name !== "AbortError") main.replaceChildren(el("p", { class: "none" }, "It cannot be shown: " + error.message)); };

async function look() {
  try {
    const status = await (await ask("/status")).json();
    looks = [...looks.filter(one => one.started === status.started), status].slice(-10);
    $("collector").textContent = status.collector;
    const text = status.status + (status.reasons.length ? ": " + status.reasons.map(reason => reason.detail).join("; ") : "");
    if ($("health").textContent !== text) $("health").textContent = text;
    $("health").className = status.status === "ready" ? "good" : status.status === "degraded" ? "some" : "none";
    // Whoever is at a control keeps it: what is shown is drawn anew when they leave it.
    const isBusy = main.contains(document.activeElement) && document.activeElement !== main;
    if (looks.length === 1 || !location.hash.startsWith("#/market/") && !isBusy) await draw();
  } catch (error) {
    $("health").textContent = "no answer from the collector: " + error.message;
    $("health").className = "none";
  }
  setTimeout(look, 2000);
}

async function lookAtPrices() {
  try { prices = await (await ask("/web/prices")).json(); } catch { /* the next time */ }
  setTimeout(lookAtPrices, 10000);
}

addEventListener("hashchange", () => { draw().catch(failed); main.focus(); });
look();
lookAtPrices();
