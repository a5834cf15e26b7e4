const fs = require("fs");
console.log("hello " + fs.readFileSync(0, "utf8").trim());
