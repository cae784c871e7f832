/* A JACK client that plays the MIDI messages it is given on stdin, one line of hexadecimal bytes each: "b0 07 40".
 *
 * All that a line holds goes out in the next period; several messages are separated by commas.
 * Declarations are written out, so that it compiles without JACK's headers: cc midi_sender.c -l:libjack.so.0
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *jack_client_open(const char *name, int options, int *status, ...);
void *jack_port_register(void *client, const char *name, const char *type, unsigned long flags, unsigned long size);
void *jack_port_get_buffer(void *port, uint32_t frames);
int jack_set_process_callback(void *client, int (*callback)(uint32_t, void *), void *argument);
int jack_activate(void *client);
void jack_midi_clear_buffer(void *buffer);
int jack_midi_event_write(void *buffer, uint32_t time, const unsigned char *data, size_t size);

enum { NO_START_SERVER = 1, OUTPUT = 2, MOST = 1 << 16 };

static void *port;
static unsigned char queue[MOST][4];
static atomic_uint written, played;

static int process(uint32_t frames, void *unused) {
    (void)unused;
    void *buffer = jack_port_get_buffer(port, frames);
    jack_midi_clear_buffer(buffer);
    for (unsigned until = written; played != until; played++) {
        unsigned char *place = queue[played % MOST];
        if (jack_midi_event_write(buffer, 0, place + 1, place[0]))
            break; /* the buffer is full: in the next period */
    }
    return 0;
}

int main(int arguments, char **values) {
    int status;
    void *client = jack_client_open(arguments > 1 ? values[1] : "sender", NO_START_SERVER, &status);
    if (!client)
        return 1;
    port = jack_port_register(client, "output", "8 bit raw midi", OUTPUT, 0);
    jack_set_process_callback(client, process, NULL);
    jack_activate(client);
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        char *at = line;
        while (*at && *at != '\n') {
            unsigned char *place = queue[written % MOST];
            place[0] = 0;
            char *end;
            for (long byte; place[0] < 3 && (byte = strtol(at, &end, 16), end != at); at = end)
                place[++place[0]] = (unsigned char)byte;
            if (place[0])
                written++;
            if (*at && *at != '\n')
                at++;
        }
    }
    return 0;
}
