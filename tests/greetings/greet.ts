import * as fs from "fs";
const w: string = fs.readFileSync(0, "utf8").trim();
console.log("hello " + w);
