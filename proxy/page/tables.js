/** Tables that become lists of rows on a phone, and the same rows as CSV. */
import { make } from "./dom.js";

// Said outright: drawn as blocks, a table would lose what it means to a screen reader.
const cell = (tag, role, properties, ...children) => make(tag, { role, ...properties }, ...children);

/**
 * A table. `columns` is [{name, of(row), number}], where `of` returns a node or text; the first one names the row.
 */
export function table(caption, columns, rows) {
  const head = columns.map(({ name, number }) => cell("th", "columnheader", { scope: "col", className: number ? "number" : "" }, name));
  const body = rows.map((row) => cell("tr", "row", {}, ...columns.map(({ name, of, number }, index) => {
    const about = { "data-name": name, className: number ? "number" : "" };
    return index ? cell("td", "cell", about, of(row)) : cell("th", "rowheader", { ...about, scope: "row" }, of(row));
  })));
  return cell("table", "table", {},
    make("caption", { className: "unseen" }, caption),
    cell("thead", "rowgroup", {}, cell("tr", "row", {}, ...head)),
    cell("tbody", "rowgroup", {}, ...body));
}

/** A value as a CSV cell that no spreadsheet takes for a formula: https://owasp.org/www-community/attacks/CSV_Injection */
function written(value) {
  const plain = value === null || value === undefined ? "" : String(value);
  const text = /^[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** `rows` as CSV with these columns. */
export function csv(names, rows) {
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((cells) => `${cells.map(written).join(",")}\r\n`).join("");
}

/** Have the browser save a text as a file. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
