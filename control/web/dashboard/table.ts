import { type Child, h } from "./dom.js";

export interface Column<Row> {
  name: string;
  cell: (row: Row) => Child;
  isNumber?: boolean;
}

export interface Table<Row> {
  /** Said by screen readers; on the page the heading before it says it. */
  title: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  /** What makes a row the same one after an update. */
  key?: (row: Row) => string;
}

/**
 * A table that becomes a list of cards where it is narrow. The roles are written out, as browsers take them from a
 * table that is laid out otherwise.
 */
export function table<Row>({ title, columns, rows, key }: Table<Row>): HTMLTableElement {
  const kind = (column: Column<Row>): string | undefined =>
    column.isNumber ? "number" : undefined;
  return h(
    "table",
    { role: "table", "aria-label": title },
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        columns.map((column) =>
          h("th", { role: "columnheader", scope: "col", class: kind(column) }, column.name),
        ),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) =>
        h(
          "tr",
          { role: "row", "data-key": key?.(row) },
          columns.map((column) =>
            h(
              "td",
              { role: "cell", class: kind(column), "data-name": column.name },
              column.cell(row),
            ),
          ),
        ),
      ),
    ),
  );
}
