// AWS's own decoder for JavaScript, on whole messages: node codec.mjs
//
// Each line on standard input is a job: {"file": messages, "sizes": [bytes of each], "loops": n, "collect": bool}.
// Each line on standard output answers one: nanoseconds of CPU in all, and the frames, or with `collect` what is in them.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { EventStreamCodec } from "@smithy/eventstream-codec";
import { fromUtf8, toUtf8 } from "@smithy/util-utf8";

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  const whole = readFileSync(job.file);
  const messages = [];
  let at = 0;
  for (const size of job.sizes) {
    messages.push(new Uint8Array(whole.buffer, whole.byteOffset + at, size));
    at += size;
  }
  const codec = new EventStreamCodec(toUtf8, fromUtf8);
  const collected = [];
  if (job.collect) {
    for (const message of messages) {
      const { headers, body } = codec.decode(message);
      const said = Object.fromEntries(Object.entries(headers).map(([name, { value }]) => [name, value]));
      collected.push([said, toUtf8(body)]);
    }
  }
  let frames = 0;
  const before = process.cpuUsage();
  for (let loop = 0; loop < job.loops; loop++) {
    for (const message of messages) {
      codec.decode(message);
      frames++;
    }
  }
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ nanoseconds: (user + system) * 1000, frames, collected }));
}
