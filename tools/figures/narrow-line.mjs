// Measures what real browsers see behind a line that narrows to 300 kbit/s: the scenario of the browser tests, three times.
// Prints a JSON array of what was seen.
//
//   STRAIT_BIN_DIR=... node tools/figures/narrow-line.mjs
import { narrowLine } from "../../tests/browser/lib/narrow.mjs";

const seen = [];
for (let round = 0; round < 3; round += 1) seen.push(await narrowLine());
console.log(JSON.stringify(seen));
