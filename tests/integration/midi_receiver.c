/* A JACK client that prints every MIDI message it gets, one line of hexadecimal bytes each.
 *
 * jack_midi_dump drops messages without a word when its printing thread is not fast enough; this one keeps a million.
 * With a second argument each line begins with the time it came in, microseconds of the monotonic clock.
 * Declarations are written out, so that it compiles without JACK's headers: cc midi_receiver.c -l:libjack.so.0
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    uint32_t time;
    size_t size;
    unsigned char *buffer;
} jack_midi_event_t;

void *jack_client_open(const char *name, int options, int *status, ...);
void *jack_port_register(void *client, const char *name, const char *type, unsigned long flags, unsigned long size);
void *jack_port_get_buffer(void *port, uint32_t frames);
int jack_set_process_callback(void *client, int (*callback)(uint32_t, void *), void *argument);
int jack_activate(void *client);
uint32_t jack_last_frame_time(const void *client);
uint64_t jack_get_time(void);
uint64_t jack_frames_to_time(const void *client, uint32_t frames);
uint32_t jack_midi_get_event_count(void *buffer);
int jack_midi_event_get(jack_midi_event_t *event, void *buffer, uint32_t index);
uint32_t jack_midi_get_lost_event_count(void *buffer);

enum { NO_START_SERVER = 1, INPUT = 1, MOST = 1 << 20 };

static void *client, *port;
static unsigned char kept[MOST][4];
static uint64_t came[MOST];
static atomic_uint count, lost;

static int process(uint32_t frames, void *unused) {
    (void)unused;
    void *buffer = jack_port_get_buffer(port, frames);
    uint32_t events = jack_midi_get_event_count(buffer);
    lost += jack_midi_get_lost_event_count(buffer);
    for (uint32_t i = 0; i < events; i++) {
        jack_midi_event_t event;
        if (jack_midi_event_get(&event, buffer, i) || event.size > 3) {
            lost++;
            continue;
        }
        unsigned char *place = kept[count % MOST];
        place[0] = (unsigned char)event.size;
        for (size_t k = 0; k < event.size; k++)
            place[1 + k] = event.buffer[k];
        came[count % MOST] = jack_frames_to_time(client, jack_last_frame_time(client) + event.time);
        count++;
    }
    return 0;
}

/* JACK may count by the raw clock, which nobody sets right: what it is behind by, in microseconds. */
static int64_t behind(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000 - (int64_t)jack_get_time();
}

int main(int arguments, char **values) {
    int status;
    client = jack_client_open(arguments > 1 ? values[1] : "receiver", NO_START_SERVER, &status);
    if (!client)
        return 1;
    port = jack_port_register(client, "input", "8 bit raw midi", INPUT, 0);
    jack_set_process_callback(client, process, NULL);
    jack_activate(client);
    unsigned printed = 0, said = 0;
    for (;;) {
        for (unsigned until = count; printed < until; printed++) {
            const unsigned char *message = kept[printed % MOST];
            if (arguments > 2)
                printf("%lld ", (long long)came[printed % MOST] + (long long)behind());
            for (int k = 0; k < message[0]; k++)
                printf(k ? " %02x" : "%02x", message[1 + k]);
            putchar('\n');
        }
        if (lost != said)
            printf("lost %u\n", said = lost);
        fflush(stdout);
        usleep(5000);
    }
}
