// npm's amqplib on a broker: node amqplib_smoke.js URL.  Prints "ok" at the end; anything else is a failure.
'use strict';
const assert = require('node:assert');
const amqp = require('amqplib');

async function refused(connection, call, pattern) {
  const channel = await connection.createChannel();
  channel.on('error', () => {});
  await assert.rejects(call(channel), pattern);
}

async function get(channel, queue) {
  for (let tries = 0; tries < 200; tries++) {
    const message = await channel.get(queue, { noAck: true });
    if (message) return message;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`nothing in ${queue}`);
}

async function main(url) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();

  // Exchanges of all types, one bound to another.
  for (const type of ['direct', 'fanout', 'topic', 'headers']) {
    await channel.assertExchange(`x.${type}`, type);
    await channel.assertQueue(`q.${type}`);
    await channel.bindQueue(`q.${type}`, `x.${type}`, 'a.*', type === 'headers' ? { 'x-match': 'all', n: 1 } : {});
  }
  await channel.bindExchange('x.fanout', 'x.topic', '#.deep');
  channel.publish('x.direct', 'a.*', Buffer.from('direct'));
  channel.publish('x.fanout', '', Buffer.from('fanout'));
  channel.publish('x.topic', 'a.b', Buffer.from('topic'));
  channel.publish('x.headers', '', Buffer.from('headers'), { headers: { n: 1 } });
  await channel.waitForConfirms();
  for (const type of ['direct', 'fanout', 'topic', 'headers']) {
    assert.strictEqual((await get(channel, `q.${type}`)).content.toString(), type);
  }
  channel.publish('x.topic', 'very.deep', Buffer.from('through'));
  assert.strictEqual((await get(channel, 'q.fanout')).content.toString(), 'through');

  // A mandatory message that nobody takes comes back.
  const returned = new Promise((resolve) => channel.once('return', resolve));
  channel.publish('', 'nobody', Buffer.from('lost'), { mandatory: true });
  assert.strictEqual((await returned).fields.replyText, 'NO_ROUTE');

  // Headers of every type it has, and a body of three frames.
  await channel.assertQueue('values');
  const headers = { text: 'ä', int: -5, long: 2 ** 40, float: 1.5, yes: true, none: null, list: [1, { x: 'y' }], table: { a: { b: 1 } } };
  const body = Buffer.alloc(300000, 'abc');
  channel.sendToQueue('values', body, { headers, correlationId: 'c', persistent: true, type: 't' });
  const message = await get(channel, 'values');
  assert.deepStrictEqual({ ...message.properties.headers }, headers);
  assert.strictEqual(message.properties.correlationId, 'c');
  assert.strictEqual(message.content.compare(body), 0);

  // Prefetch, requeue, ack, cancel.
  await channel.assertQueue('work');
  for (const text of ['1', '2', '3']) channel.sendToQueue('work', Buffer.from(text));
  await channel.waitForConfirms();
  await channel.prefetch(1);
  const seen = [];
  await new Promise((resolve) => {
    channel.consume('work', (delivery) => {
      const text = delivery.content.toString();
      seen.push(text);
      if (text === '2' && !delivery.fields.redelivered) channel.nack(delivery);
      else channel.ack(delivery);
      if (seen.length === 4) resolve();
    }, { consumerTag: 'worker' });
  });
  assert.deepStrictEqual(seen, ['1', '2', '2', '3']);
  await channel.cancel('worker');
  assert.strictEqual((await channel.checkQueue('work')).consumerCount, 0);

  // Time to live, dead letters, priorities.
  await channel.assertQueue('dead');
  await channel.assertQueue('brief', { messageTtl: 0, deadLetterExchange: '', deadLetterRoutingKey: 'dead' });
  channel.sendToQueue('brief', Buffer.from('old'));
  const [death] = (await get(channel, 'dead')).properties.headers['x-death'];
  assert.strictEqual(death.reason, 'expired');
  assert.strictEqual(death.queue, 'brief');
  await channel.assertQueue('urgent', { maxPriority: 9 });
  for (const priority of [1, 5, 3]) channel.sendToQueue('urgent', Buffer.from(`${priority}`), { priority });
  await channel.waitForConfirms();
  const order = [];
  for (let i = 0; i < 3; i++) order.push((await get(channel, 'urgent')).content.toString());
  assert.deepStrictEqual(order, ['5', '3', '1']);

  // A question by direct reply-to.
  const answer = new Promise((resolve) => {
    channel.consume('amq.rabbitmq.reply-to', (delivery) => resolve(delivery.content.toString()), { noAck: true });
  });
  channel.sendToQueue('work', Buffer.from('ask'), { replyTo: 'amq.rabbitmq.reply-to' });
  const question = await get(channel, 'work');
  channel.sendToQueue(question.properties.replyTo, Buffer.from('answer'));
  assert.strictEqual(await answer, 'answer');

  // Errors, with their texts.
  await refused(connection, (ch) => ch.checkQueue('none'), /404 \(NOT-FOUND\) with message "NOT_FOUND - no queue 'none'/);
  await refused(connection, (ch) => ch.assertQueue('work', { durable: false }), /406 .*inequivalent arg 'durable' for queue 'work'/);
  await refused(connection, (ch) => ch.assertQueue('amq.mine'), /403 .*contains reserved prefix 'amq\.\*'/);

  // Publishes that are still in its multiplexer when it closes.
  const plain = await connection.createChannel();
  while (plain.sendToQueue('values', Buffer.alloc(1000))) { /* until it says that it is full */ }
  await connection.close();
  console.log('ok');
}

main(process.argv[2]).catch((error) => { console.error(error); process.exit(1); });
