/** The usage page: asks whose key it is and what was used, and keeps the parts in step. */
import { changeKey, lastJobs, resolve, unknownJobs, usage, whoAsks } from "./accounts.js";
import { sumCard } from "./bars.js";
import { byId, hush, make, recall, remember, tell } from "./dom.js";
import { edit } from "./editor.js";
import { date, day, daysUpTo, dollars, moment, month, pictures } from "./figures.js";
import { caller, drawKeys, drawOwn } from "./keys.js";
import { seriesOf, startPlot } from "./plot.js";
import { csv, save, table } from "./tables.js";

const KEPT = "usage-key"; // not the playground's: the admin key buys no picture
const MOST_UNKNOWN = 50;
const FIRST_JOBS = 20;
const OUTCOMES = { spent: "paid", reserved: "running", released: "not billed", unknown: "unknown" };
const JOB_COLUMNS = ["at", "job", "key", "owner", "user", "provider", "model", "outcome", "amount", "price_source"];
const SUMS = ["pictures", "spent", "reserved", "unknown", "reserved_pictures", "unknown_pictures"];

const drawPlot = startPlot(byId("plot"));
let who = null;
let today = "";
let plotted = { rows: [], split: "model" };
let jobs = [];
let allJobs = false;
let shownFor = null; // the key whose figures are on the page
let plots = 0;
let asked = 0; // answers of an earlier question come too late

const key = () => byId("key").value.trim();

function tellService(text, state) {
  byId("service").textContent = text;
  byId("service").dataset.state = state;
}

function title() {
  if (who.role === "admin") return "Admin key: everybody’s usage.";
  if (who.role === "key") return `Key “${who.own.name}”: its own usage.`;
  return `This service asks for no key: what was used without one.${who.administration ? " The admin key shows all." : ""}`;
}

function model(row) {
  return make("span", {}, make("span", { className: "name" }, row.model || "—"), make("span", { className: "soft" }, row.provider));
}

const outcome = (job) => make("span", { className: `badge ${job.outcome}` }, OUTCOMES[job.outcome] ?? job.outcome);

function whose(row) {
  return make("span", {}, make("span", { className: "name" }, caller(row.key)), row.user ? make("span", { className: "soft" }, row.user) : null);
}

function drawUnknown(rows) {
  const admin = who.role === "admin";
  byId("unknown").hidden = rows.length === 0;
  byId("unknown-hint").textContent = `Sent to the provider, and nobody knows whether it was billed. Counted against the budget until that is known.${
    admin ? " Look it up in the provider’s bill, then say so." : " The service’s owner can settle it."}${
    rows.length > MOST_UNKNOWN ? ` The first ${MOST_UNKNOWN} of ${rows.length}.` : ""}`;
  byId("unknown-list").replaceChildren(...rows.slice(0, MOST_UNKNOWN).map((row) => {
    const button = (words, is) => make("button", {
      type: "button", className: "quiet", "aria-label": `${words}: ${row.job}`, on: { click: (event) => settle(row.job, is, event.target) },
    }, words);
    return make("li", {},
      make("div", { className: "about" },
        make("p", {}, make("b", {}, dollars(row.amount)), ` · ${[moment(row.at), admin ? caller(row.key) : null, row.provider].filter(Boolean).join(" · ")}`),
        make("p", { className: "hint name" }, row.model),
        make("p", { className: "hint" }, make("code", {}, row.job))),
      admin ? make("div", { className: "actions" }, button("It was paid", "paid"), button("It was free", "free")) : null);
  }));
}

async function settle(job, is, button) {
  button.disabled = true;
  try {
    await resolve(key(), job, is);
    tell(is === "paid" ? "Counted as spent." : "Released.");
    await load();
    (byId("unknown").hidden ? byId("report-title") : byId("unknown-title")).focus();
  } catch (error) {
    button.disabled = false;
    tell(error.message);
  }
}

function drawModels({ rows }) {
  const bought = rows.filter((row) => row.pictures || Number(row.reserved) || Number(row.unknown) || row.unknown_pictures || row.reserved_pictures);
  const columns = [
    { name: "Model", of: (row) => model(row) },
    { name: "Pictures", number: true, of: (row) => row.pictures.toLocaleString("en-US") },
    { name: "Spent", number: true, of: (row) => dollars(row.spent) },
    { name: "A picture", number: true, of: (row) => (row.pictures ? dollars(Number(row.spent) / row.pictures) : "—") },
    { name: "Unknown", number: true, of: (row) => (Number(row.unknown) || row.unknown_pictures ? dollars(row.unknown) : "—") },
  ];
  byId("models-table").replaceChildren(bought.length ? table("Pictures and dollars by model and provider", columns, bought)
    : make("p", { className: "hint" }, "No picture was bought this month."));
}

function drawJobs() {
  const columns = [
    { name: "When (UTC)", of: (row) => moment(row.at) },
    ...(who.role === "admin" ? [{ name: "Key", of: whose }] : []),
    { name: "Model", of: model },
    { name: "Outcome", of: outcome },
    { name: "Amount", number: true, of: (row) => (row.outcome === "released" ? "—" : dollars(row.amount)) },
  ];
  byId("jobs-csv").hidden = jobs.length === 0;
  byId("jobs-all").hidden = allJobs || jobs.length <= FIRST_JOBS;
  byId("jobs-all").textContent = `Show all ${jobs.length}`;
  byId("jobs-table").replaceChildren(jobs.length ? table("The last 100 jobs", columns, jobs.slice(0, allJobs ? jobs.length : FIRST_JOBS))
    : make("p", { className: "hint" }, "No picture was asked for so far."));
}

const named = (row) => (plotted.split === "key" ? caller(row.key) : row.model);

function redrawPlot() {
  const unit = byId("plot-unit").value;
  const shown = unit === "spent" ? dollars : (count) => Number(count).toLocaleString("en-US");
  const count = Number(byId("plot-days").value);
  const days = daysUpTo(today, count);
  const rows = plotted.rows.filter((row) => row.pictures || Number(row.spent) || Number(row.unknown) || Number(row.reserved));
  const series = seriesOf(rows, days, named, (row) => Number(row[unit]));
  const total = series.reduce((sum, one) => sum + one.total, 0);
  const label = `${unit === "spent" ? dollars(total) : pictures(total)} in ${count} days by ${plotted.split}: ${
    series.map((one) => `${one.name} ${shown(one.total)}`).join(", ") || "nothing"}. The table below has each day.`;
  byId("plot-none").hidden = series.length > 0;
  byId("plot-none").textContent = unit === "spent" ? "Nothing was spent in these days." : "No picture was bought in these days.";
  byId("plot").hidden = series.length === 0;
  drawPlot({ days, series, label, shown, dayName: day, whole: unit !== "spent" });
  byId("plot-details").hidden = rows.length === 0;
  byId("plot-csv").hidden = rows.length === 0;
  byId("plot-table").replaceChildren(table(`By day and ${plotted.split}`, [
    { name: "Day", of: (row) => date(row.day) },
    { name: plotted.split === "key" ? "Key" : "Model", of: (row) => make("span", { className: "name" }, named(row)) },
    { name: "Pictures", number: true, of: (row) => row.pictures.toLocaleString("en-US") },
    { name: "Spent", number: true, of: (row) => dollars(row.spent) },
    { name: "Unknown", number: true, of: (row) => (Number(row.unknown) ? dollars(row.unknown) : "—") },
  ], [...rows].reverse()));
}

async function askPlot() {
  const split = who.role === "admin" ? byId("plot-by").value : "model";
  const { rows } = await usage(key(), { by: "day", split, since: `${Number(byId("plot-days").value) - 1}d` });
  return { rows, split };
}

function drawWho({ rows, limits }) {
  const admin = who.role === "admin";
  byId("key-new").hidden = !admin;
  byId("plot-by-label").hidden = !admin;
  byId("administration").hidden = who.administration;
  if (admin) drawKeys(who.keys, limits, rows, { change, disable });
  else drawOwn(who.own);
}

async function load() {
  const mine = ++asked;
  tellService("Asking the service…", "");
  try {
    const found = await whoAsks(key());
    if (mine !== asked) return;
    who = found;
    const [now, thisMonth, byKey, days, unsettled, last] = await Promise.all([
      usage(key(), { by: "key", since: "0d" }),
      usage(key(), { by: "model", split: "provider" }),
      usage(key(), { by: "key" }),
      askPlot(),
      unknownJobs(key()),
      lastJobs(key()),
    ]);
    if (mine !== asked) return;
    today = now.since;
    plotted = days;
    jobs = last;
    byId("report").hidden = false;
    shownFor = key();
    byId("as-of").textContent = moment(new Date());
    byId("sums").replaceChildren(sumCard("Today", date(today), now.total), sumCard("This month", month(thisMonth.since), thisMonth.total));
    byId("models-hint").textContent = `${month(thisMonth.since)}. The price of a picture is what was spent, divided by the pictures.`;
    drawWho(byKey);
    drawUnknown(unsettled);
    drawModels(thisMonth);
    drawJobs();
    redrawPlot();
    tellService(title(), "good");
  } catch (error) {
    if (mine === asked) fail(error);
  }
}

function fail(error) {
  // Nothing of another key's may stay on the page; a service that fails for a moment takes nothing away.
  const refused = error.status >= 400 && error.status < 500;
  if (refused || key() !== shownFor) byId("report").hidden = true;
  const missing = error.status === 401 && !key();
  if (error.status === 401) byId("entry").open = true;
  byId("administration").hidden = true;
  tellService(missing ? "This service asks for an API key." : error.message, "bad");
}

/** After a change the list is drawn anew: give the focus to a button of the same key, or to what is left without it. */
function focusKey(id, last) {
  const buttons = document.querySelectorAll(`[data-key="${CSS.escape(id)}"] button`);
  (buttons[last ? buttons.length - 1 : 0] ?? byId("key-new")).focus();
}

function change(one) {
  edit(key(), one, async (said) => {
    await load();
    if (!one || byId("editor").open) return; // a new secret is still shown
    tell(said);
    focusKey(one.id, false);
  });
}

async function disable(one) {
  try {
    await changeKey(key(), one.disabled ? "unblock" : "block", { key: one.id });
    await load();
    tell(`${one.name} is ${one.disabled ? "enabled again" : "disabled"}.`);
    focusKey(one.id, true);
  } catch (error) {
    tell(error.message);
  }
}

async function enter(event) {
  event.preventDefault();
  remember(KEPT, key());
  hush();
  await load();
  if (byId("service").dataset.state !== "good") return;
  byId("entry").open = false;
  byId("report-title").focus();
}

function startEntry() {
  const field = byId("key");
  const show = byId("key-show");
  field.value = recall(KEPT) ?? recall("key") ?? "";
  byId("entry-form").addEventListener("submit", enter);
  show.addEventListener("click", () => {
    const hidden = field.type === "password";
    field.type = hidden ? "text" : "password";
    show.textContent = hidden ? "Hide" : "Show";
    show.setAttribute("aria-pressed", String(hidden));
  });
  byId("key-forget").addEventListener("click", () => {
    field.value = "";
    remember(KEPT, "");
    byId("report").hidden = true;
    load();
    field.focus();
  });
}

async function replot() {
  const mine = ++plots;
  try {
    const found = await askPlot();
    if (mine !== plots) return;
    plotted = found;
    redrawPlot();
  } catch (error) {
    tell(error.message);
  }
}

startEntry();
byId("refresh").addEventListener("click", load);
byId("key-new").addEventListener("click", () => change(null));
byId("jobs-all").addEventListener("click", () => {
  allJobs = true;
  drawJobs();
  byId("jobs-title").focus();
});
byId("plot-unit").addEventListener("change", redrawPlot);
byId("plot-by").addEventListener("change", replot);
byId("plot-days").addEventListener("change", replot);
byId("plot-csv").addEventListener("click", () => save(`usage-${today}.csv`, csv(["day", plotted.split, ...SUMS], plotted.rows)));
byId("jobs-csv").addEventListener("click", () => save(`jobs-${today}.csv`, csv(JOB_COLUMNS, jobs)));
load();
