/* Request and reply with rabbitmq-c: the limit that benchmarks/rpc.py compares to.
 *
 * usage: rabbitmqc_rpc HOST PORT VHOST server QUEUE
 *        rabbitmqc_rpc HOST PORT VHOST client QUEUE ONE MANY IN_FLIGHT
 * The server answers each request with its body.  The client asks over direct reply-to, as a caller has to: with a
 * correlation id that it compares.  User name and password: BENCH_USER, BENCH_PASSWORD.
 * Built with: cc -O2 rabbitmqc_rpc.c -lrabbitmq
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { CHANNEL = 1, PREFETCH = 100, WARM_UP = 200 };

static amqp_connection_state_t connection;
static amqp_bytes_t queue, body;
static unsigned long long last_id;

static void fail(const char *what) {
  fprintf(stderr, "rabbitmqc_rpc: %s failed\n", what);
  exit(1);
}

static void check(int status, const char *what) {
  if (status != AMQP_STATUS_OK) fail(what);
}

static void check_reply(const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double wall_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static const char *environment(const char *name) {
  const char *value = getenv(name);
  return value ? value : "guest";
}

static void serve(void) {
  amqp_queue_declare(connection, CHANNEL, queue, 0, 0, 0, 0, amqp_empty_table);
  check_reply("queue.declare");
  amqp_basic_qos(connection, CHANNEL, 0, PREFETCH, 0);
  check_reply("basic.qos");
  amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  check_reply("basic.consume");
  puts("ready");
  fflush(stdout);
  for (;;) {
    amqp_envelope_t envelope;
    amqp_basic_properties_t properties;
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("consume");
    memset(&properties, 0, sizeof properties);
    properties._flags = AMQP_BASIC_CORRELATION_ID_FLAG;
    properties.correlation_id = envelope.message.properties.correlation_id;
    check(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, envelope.message.properties.reply_to, 0, 0,
                             &properties, envelope.message.body), "publish");
    check(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 0), "ack");
    amqp_destroy_envelope(&envelope);
  }
}

static void ask(void) {
  char id[33];
  amqp_basic_properties_t properties;
  memset(&properties, 0, sizeof properties);
  snprintf(id, sizeof id, "%032llx", ++last_id);
  properties._flags = AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
  properties.correlation_id = amqp_cstring_bytes(id);
  properties.reply_to = amqp_cstring_bytes("amq.rabbitmq.reply-to");
  check(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, queue, 0, 0, &properties, body), "publish");
}

static unsigned long long answer(void) {
  char id[33];
  amqp_envelope_t envelope;
  amqp_maybe_release_buffers(connection);
  if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("consume");
  if (envelope.message.properties.correlation_id.len != 32) fail("the correlation id");
  memcpy(id, envelope.message.properties.correlation_id.bytes, 32);
  id[32] = 0;
  amqp_destroy_envelope(&envelope);
  return strtoull(id, NULL, 16);
}

static void call(void) {
  ask();
  while (answer() != last_id) continue;
}

int main(int argc, char **argv) {
  if (argc < 6) {
    fprintf(stderr, "usage: rabbitmqc_rpc HOST PORT VHOST server|client QUEUE [ONE MANY IN_FLIGHT]\n");
    return 2;
  }
  queue = amqp_cstring_bytes(argv[5]);
  body = amqp_cstring_bytes("{\"method\":\"add\",\"args\":[1234,1234],\"kwargs\":{},\"deadline\":1753000000.123}");
  connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket) fail("socket");
  check(amqp_socket_open(socket, argv[1], atoi(argv[2])), "connect");
  if (amqp_login(connection, argv[3], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, environment("BENCH_USER"),
                 environment("BENCH_PASSWORD")).reply_type != AMQP_RESPONSE_NORMAL)
    fail("login");
  amqp_channel_open(connection, CHANNEL);
  check_reply("channel.open");
  if (!strcmp(argv[4], "server")) serve();
  if (argc != 9) fail("counting the arguments");
  long one = atol(argv[6]), many = atol(argv[7]), in_flight = atol(argv[8]);
  amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes("amq.rabbitmq.reply-to"), amqp_empty_bytes, 0, 1, 0,
                     amqp_empty_table);
  check_reply("basic.consume");
  for (int i = 0; i < WARM_UP; i++) call();
  printf("{\"one\": [");
  for (long i = 0; i < one; i++) {
    double started = wall_seconds();
    call();
    printf("%s%.9f", i ? ", " : "", wall_seconds() - started);
  }
  double cpu = cpu_seconds(), wall = wall_seconds();
  for (long asked = 0, done = 0; done < many; done++) {
    for (; asked < many && asked - done < in_flight; asked++) ask();
    answer();
  }
  printf("], \"many\": %.6f, \"cpu\": %.6f}\n", wall_seconds() - wall, cpu_seconds() - cpu);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
