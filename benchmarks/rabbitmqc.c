/* rabbitmq-c under the same tasks as the other clients: see benchmarks/task.py for the rules.
 *
 * usage: rabbitmqc HOST PORT VHOST OPERATION SIZE COUNT QUEUE
 * The user name and password are read from the environment (BENCH_USER, BENCH_PASSWORD).
 * Prints one line of JSON.  Built by benchmarks/rabbitmqc.py with: cc -O2 rabbitmqc.c -lrabbitmq
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { CHANNEL = 1, IN_FLIGHT = 1000 };

static amqp_connection_state_t connection;

static void fail(const char *what) {
  fprintf(stderr, "rabbitmqc: %s failed\n", what);
  exit(1);
}

static void check(int status, const char *what) {
  if (status != AMQP_STATUS_OK) {
    fprintf(stderr, "rabbitmqc: %s: %s\n", what, amqp_error_string2(status));
    exit(1);
  }
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

static void publish_one(amqp_bytes_t queue, amqp_basic_properties_t *properties, amqp_bytes_t body) {
  check(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, queue, 0, 0, properties, body), "publish");
}

/* Wait for one frame and give back how many messages it confirms. */
static uint64_t read_confirm(uint64_t *confirmed_up_to) {
  amqp_frame_t frame;
  amqp_maybe_release_buffers(connection);
  check(amqp_simple_wait_frame(connection, &frame), "waiting for a confirm");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("confirm");
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  uint64_t confirmed = ack->multiple ? ack->delivery_tag - *confirmed_up_to : 1;
  *confirmed_up_to += confirmed;
  return confirmed;
}

static void publish(int confirmed, long count, amqp_bytes_t queue, amqp_bytes_t body) {
  amqp_basic_properties_t properties;
  uint64_t in_flight = 0, confirmed_up_to = 0;
  memset(&properties, 0, sizeof properties);
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
  properties.delivery_mode = 1;
  for (long i = 0; i < count; i++) {
    while (in_flight >= IN_FLIGHT) in_flight -= read_confirm(&confirmed_up_to);
    publish_one(queue, &properties, body);
    in_flight += (uint64_t)confirmed;
  }
  while (in_flight) in_flight -= read_confirm(&confirmed_up_to);
}

static unsigned long long consume(int no_ack, long count, amqp_bytes_t queue) {
  unsigned long long received_bytes = 0;
  amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, 0, no_ack, 0, amqp_empty_table);
  check_reply("basic.consume");
  for (long i = 0; i < count; i++) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("consume");
    received_bytes += envelope.message.body.len;
    if (!no_ack) check(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 0), "ack");
    amqp_destroy_envelope(&envelope);
  }
  return received_bytes;
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "usage: rabbitmqc HOST PORT VHOST OPERATION SIZE COUNT QUEUE\n");
    return 2;
  }
  const char *operation = argv[4];
  size_t size = (size_t)atol(argv[5]);
  long count = atol(argv[6]);
  amqp_bytes_t queue = amqp_cstring_bytes(argv[7]);
  amqp_bytes_t body = {size, malloc(size)};
  if (!body.bytes) fail("malloc");
  memset(body.bytes, 'x', size);

  connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket) fail("socket");
  check(amqp_socket_open(socket, argv[1], atoi(argv[2])), "connect");
  if (amqp_login(connection, argv[3], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, environment("BENCH_USER"),
                 environment("BENCH_PASSWORD")).reply_type != AMQP_RESPONSE_NORMAL)
    fail("login");
  amqp_channel_open(connection, CHANNEL);
  check_reply("channel.open");
  int is_confirmed = !strcmp(operation, "publish-confirmed");
  if (is_confirmed) {
    amqp_confirm_select(connection, CHANNEL);
    check_reply("confirm.select");
  }
  int prefetch = !strcmp(operation, "consume-ack") ? 200 : !strcmp(operation, "consume-ack-1000") ? 1000 : 0;
  if (prefetch) {
    amqp_basic_qos(connection, CHANNEL, 0, (uint16_t)prefetch, 0);
    check_reply("basic.qos");
  }

  unsigned long long received_bytes = 0;
  double cpu = cpu_seconds(), wall = wall_seconds();
  if (!strncmp(operation, "consume", 7))
    received_bytes = consume(!strcmp(operation, "consume-no-ack"), count, queue);
  else
    publish(is_confirmed, count, queue, body);
  long expected = strncmp(operation, "consume", 7) ? count : 0, messages = -1;
  while (messages != expected) {
    amqp_queue_declare_ok_t *declared =
        amqp_queue_declare(connection, CHANNEL, queue, 1, 0, 0, 0, amqp_empty_table);
    check_reply("queue.declare");
    messages = (long)declared->message_count;
  }
  wall = wall_seconds() - wall;
  cpu = cpu_seconds() - cpu;
  printf("{\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"received_bytes\": %llu}\n", wall, cpu, received_bytes);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  free(body.bytes);
  return 0;
}
