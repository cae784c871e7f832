/* A real VST3 plugin in plain C for the tests: stereo, a true delay that it reports, and faults on demand.
 *
 * Compiled with -DCRASH_AT_LOAD, -DHANG_AT_LOAD or -DWORK_AT_LOAD it never comes to live. Otherwise its parameter
 * "Fault" says what the next blocks do: 0 pass on, 1 give NaN, 2 take SLOW_MS, 3 never return, 4 abort. "Late" is its delay in samples,
 * 0 to 2048; a change is told to the host. -DLATE=n and -DFAULT=n set them at the start.
 *
 * Only what hosts ask for is there. Interfaces: https://steinbergmedia.github.io/vst3_doc/
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef LATE
#define LATE 0
#endif
#ifndef FAULT
#define FAULT 0
#endif
#ifndef SLOW_MS
#define SLOW_MS 30
#endif
#define MOST 2048
#define EXPORT __attribute__((visibility("default")))

typedef int32_t result;
typedef uint8_t uid[16];
enum { OK = 0, NO = 1, NOT_THERE = 3, NO_INTERFACE = -1 };

#define WORD(x) (uint8_t)((uint32_t)(x) >> 24), (uint8_t)((x) >> 16), (uint8_t)((x) >> 8), (uint8_t)(x)
#define UID(a, b, c, d) {WORD(a), WORD(b), WORD(c), WORD(d)}
static const uid UNKNOWN = UID(0x00000000, 0x00000000, 0xC0000000, 0x00000046);
static const uid FACTORY = UID(0x7A4D811C, 0x52114A1F, 0xAED9D2EE, 0x0B43BF9F);
static const uid BASE = UID(0x22888DDB, 0x156E45AE, 0x8358B348, 0x08190625);
static const uid COMPONENT = UID(0xE831FF31, 0xF2D54301, 0x928EBBEE, 0x25697802);
static const uid PROCESSOR = UID(0x42043F99, 0xB7DA453C, 0xA569E79D, 0x9AAEC33D);
static const uid CONTROLLER = UID(0xDCD7BBE3, 0x7742448D, 0xA874AACC, 0x979C759E);
static const uid OURS = UID(0x72747365, 0x70746573, 0x74730000, 0x00000001);

typedef struct { int32_t media, direction, channels; uint16_t name[128]; int32_t type; uint32_t flags; } bus_info;
typedef struct { uint32_t id; uint16_t title[128], short_title[128], units[128]; int32_t steps; double normal;
                 int32_t unit, flags; } parameter_info;
typedef struct { int32_t channels; uint64_t silent; float **audio; } bus;
typedef struct queue { struct { void *unknown[3]; uint32_t (*id)(struct queue *); int32_t (*count)(struct queue *);
    result (*point)(struct queue *, int32_t, int32_t *, double *); } *v; } queue;
typedef struct changes { struct { void *unknown[3]; int32_t (*count)(struct changes *);
    queue *(*data)(struct changes *, int32_t); } *v; } changes;
typedef struct { int32_t mode, size, samples, inputs, outputs; bus *in, *out; changes *set; void *rest[4]; } process_data;
typedef struct handler { struct { void *unknown[3]; void *edits[3]; result (*restart)(struct handler *, int32_t); } *v;
} handler;
typedef struct stream { struct { void *unknown[3]; result (*read)(struct stream *, void *, int32_t, int32_t *);
    result (*write)(struct stream *, void *, int32_t, int32_t *); } *v; } stream;

typedef struct {
    const void *component, *processor, *controller;
    int references;
    double fault, late; /* plain values */
    handler *host;
    float line[2][MOST + 1];
    int at;
} plugin;

#define SELF(name) plugin *self = (plugin *)((char *)(pointer) - offsetof(plugin, name))

static result query(plugin *self, const uint8_t *id, void **out) {
    *out = NULL;
    if (!memcmp(id, COMPONENT, 16) || !memcmp(id, UNKNOWN, 16) || !memcmp(id, BASE, 16)) *out = &self->component;
    if (!memcmp(id, PROCESSOR, 16)) *out = &self->processor;
    if (!memcmp(id, CONTROLLER, 16)) *out = &self->controller;
    if (*out) self->references++;
    return *out ? OK : NO_INTERFACE;
}

#define UNKNOWN_OF(name) \
    static result name##_query(void *pointer, const uint8_t *id, void **out) { SELF(name); return query(self, id, out); } \
    static uint32_t name##_add(void *pointer) { SELF(name); return (uint32_t)++self->references; } \
    static uint32_t name##_release(void *pointer) { \
        SELF(name); \
        int left = --self->references; \
        if (!left) free(self); \
        return (uint32_t)left; \
    }
UNKNOWN_OF(component)
UNKNOWN_OF(processor)
UNKNOWN_OF(controller)

static void text(uint16_t *to, const char *from) { do *to++ = (uint16_t)*from; while (*from++); }
static result yes(void) { return OK; }
static result no(void) { return NOT_THERE; }

/* component */
static result controller_class(void *pointer, uint8_t *id) { (void)pointer; (void)id; return NOT_THERE; }
static int32_t bus_count(void *p, int32_t media, int32_t direction) { (void)p; (void)direction; return media == 0; }
static result get_bus(void *p, int32_t media, int32_t direction, int32_t index, bus_info *info) {
    (void)p;
    if (media || index) return NO;
    memset(info, 0, sizeof *info);
    info->direction = direction, info->channels = 2, info->flags = 1;
    text(info->name, direction ? "Out" : "In");
    return OK;
}
static result set_state(void *pointer, stream *from) {
    SELF(component);
    double both[2];
    int32_t got = 0;
    if (from->v->read(from, both, sizeof both, &got) == OK && got == sizeof both) self->fault = both[0], self->late = both[1];
    return OK;
}
static result get_state(void *pointer, stream *to) {
    SELF(component);
    double both[2] = {self->fault, self->late};
    return to->v->write(to, both, sizeof both, NULL);
}

/* processor */
static result set_arrangements(void *p, uint64_t *in, int32_t ins, uint64_t *out, int32_t outs) {
    (void)p;
    return ins == 1 && outs == 1 && in[0] == 3 && out[0] == 3 ? OK : NO;
}
static result get_arrangement(void *p, int32_t direction, int32_t index, uint64_t *out) {
    (void)p; (void)direction; (void)index;
    *out = 3;
    return OK;
}
static result can_size(void *p, int32_t size) { (void)p; return size == 0 ? OK : NO; }
static uint32_t latency(void *pointer) { SELF(processor); return (uint32_t)lround(self->late); }
static uint32_t tail(void *p) { (void)p; return 0; }

static void set_plain(plugin *self, uint32_t id, double normal) {
    if (id == 0) self->fault = normal * 4;
    if (id == 1) {
        double before = self->late;
        self->late = normal * MOST;
        if (lround(before) != lround(self->late) && self->host) self->host->v->restart(self->host, 8 /* latency */);
    }
}

static result process(void *pointer, process_data *data) {
    SELF(processor);
    for (int32_t i = 0; data->set && i < data->set->v->count(data->set); i++) {
        queue *one = data->set->v->data(data->set, i);
        int32_t offset, points = one->v->count(one);
        double value;
        if (points && one->v->point(one, points - 1, &offset, &value) == OK) set_plain(self, one->v->id(one), value);
    }
    int fault = (int)lround(self->fault);
    if (fault == 2) usleep(SLOW_MS * 1000);
    if (fault == 3) for (;;) usleep(1000);
    if (fault == 4) abort();
    if (!data->inputs || !data->outputs) return OK;
    int late = (int)lround(self->late);
    for (int32_t t = 0; t < data->samples; t++) {
        for (int c = 0; c < 2; c++) {
            self->line[c][self->at] = data->in[0].audio[c][t];
            float y = self->line[c][(self->at + MOST + 1 - late) % (MOST + 1)];
            data->out[0].audio[c][t] = fault == 1 ? NAN : y;
        }
        self->at = (self->at + 1) % (MOST + 1);
    }
    return OK;
}

static result set_active(void *pointer, uint8_t on) {
    SELF(component);
    if (on) memset(self->line, 0, sizeof self->line);
    return OK;
}

/* controller */
static int32_t parameter_count(void *p) { (void)p; return 2; }
static double normal_of(uint32_t id, double plain) { return id ? plain / MOST : plain / 4; }
static result get_parameter(void *p, int32_t index, parameter_info *info) {
    (void)p;
    if (index < 0 || index > 1) return NO;
    memset(info, 0, sizeof *info);
    info->id = (uint32_t)index, info->flags = 1, info->normal = normal_of(info->id, index ? LATE : FAULT);
    text(info->title, index ? "Late" : "Fault");
    text(info->short_title, index ? "Late" : "Fault");
    return OK;
}
static double to_plain(void *p, uint32_t id, double normal) { (void)p; return id ? normal * MOST : normal * 4; }
static double to_normal(void *p, uint32_t id, double plain) { (void)p; return normal_of(id, plain); }
static result to_text(void *p, uint32_t id, double normal, uint16_t *out) {
    char line[32];
    snprintf(line, sizeof line, "%.3f", to_plain(p, id, normal));
    text(out, line);
    return OK;
}
static result from_text(void *p, uint32_t id, uint16_t *from, double *out) {
    char line[32] = {0};
    for (int i = 0; i < 31 && from[i]; i++) line[i] = (char)from[i];
    *out = normal_of(id, atof(line));
    (void)p;
    return OK;
}
static double get_normal(void *pointer, uint32_t id) { SELF(controller); return normal_of(id, id ? self->late : self->fault); }
static result set_normal(void *pointer, uint32_t id, double value) { SELF(controller); set_plain(self, id, value); return OK; }
static result set_handler(void *pointer, handler *host) { SELF(controller); self->host = host; return OK; }
static void *view(void *p, const char *name) { (void)p; (void)name; return NULL; }

static const void *const component_table[] = {component_query, component_add, component_release, yes, yes,
    controller_class, yes, bus_count, get_bus, no, yes, set_active, set_state, get_state};
static const void *const processor_table[] = {processor_query, processor_add, processor_release, set_arrangements,
    get_arrangement, can_size, latency, yes, yes, process, tail};
static const void *const controller_table[] = {controller_query, controller_add, controller_release, yes, yes, yes, yes,
    yes, parameter_count, get_parameter, to_text, from_text, to_plain, to_normal, get_normal, set_normal, set_handler, view};

/* factory */
typedef struct { char vendor[64], url[256], email[128]; int32_t flags; } factory_info;
typedef struct { uid id; int32_t cardinality; char category[32], name[64]; } class_info;

static result factory_query(void *p, const uint8_t *id, void **out) {
    *out = !memcmp(id, FACTORY, 16) || !memcmp(id, UNKNOWN, 16) ? p : NULL;
    return *out ? OK : NO_INTERFACE;
}
static uint32_t one(void *p) { (void)p; return 1; }
static result get_factory(void *p, factory_info *info) {
    (void)p;
    memset(info, 0, sizeof *info);
    strcpy(info->vendor, "rtsep tests");
    return OK;
}
static int32_t classes(void *p) { (void)p; return 1; }
static result get_class(void *p, int32_t index, class_info *info) {
    (void)p;
    if (index) return NO;
    memset(info, 0, sizeof *info);
    memcpy(info->id, OURS, 16);
    info->cardinality = 0x7FFFFFFF;
    strcpy(info->category, "Audio Module Class");
    strcpy(info->name, "Faulty");
    return OK;
}
static result create(void *p, const uint8_t *class, const uint8_t *id, void **out) {
    (void)p;
    if (memcmp(class, OURS, 16)) return NO;
    plugin *self = calloc(1, sizeof *self);
    self->component = component_table, self->processor = processor_table, self->controller = controller_table;
    self->late = LATE, self->fault = FAULT;
    result found = query(self, id, out);
    if (found != OK) free(self);
    return found;
}
static const void *const factory_table[] = {factory_query, one, one, get_factory, classes, get_class, create};
static struct { const void *v; } factory = {factory_table};

EXPORT uint8_t ModuleEntry(void *library) { (void)library; return 1; }
EXPORT uint8_t ModuleExit(void) { return 1; }
EXPORT void *GetPluginFactory(void) {
#ifdef CRASH_AT_LOAD
    *(volatile int *)0 = 1;
#endif
#ifdef WORK_AT_LOAD
    for (volatile unsigned long k = 0;; k++) {}
#endif
#ifdef HANG_AT_LOAD
    for (;;) pause();
#endif
    return &factory;
}
