// Node's amqplib as the shipper @NAME@: publishes what it reads, a JSON document a line, with
// confirms. `npm install amqplib`, then: node publish.js < events.ndjson
// It logs in by its certificate. API: amqplib, "Channel API reference", ConfirmChannel.
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const amqp = require("amqplib");

const file = (name) => fs.readFileSync(path.join(__dirname, name));

function fail(error) {
  console.error(error.message);
  process.exit(1);
}

async function main() {
  const link = await amqp.connect("amqps://rabbitmq:5671/%2F", {
    ca: [file("ca.pem")],
    cert: file("cert.pem"),
    key: file("key.pem"),
    credentials: amqp.credentials.external(),
  });
  // An operator's close, as of a shipper that is revoked, is no error to amqplib.
  link.on("close", () => fail(new Error("the broker has closed the connection")));
  link.on("error", fail);
  const channel = await link.createConfirmChannel();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim()) {
      channel.publish("@EXCHANGE@", "@NAME@", Buffer.from(line), { persistent: true });
    }
  }
  await channel.waitForConfirms();
  link.removeAllListeners("close");
  await link.close();
}

main().catch(fail);
