/* One C function for each static inline function of DPDK that the gateway calls. A call a burst of 32 costs nothing
 * that can be measured.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_log.h>

uint16_t dpdk_shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, frames, count);
}

uint16_t dpdk_shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, frames, count);
}

struct rte_mbuf *dpdk_shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void dpdk_shim_mbuf_free(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}

char *dpdk_shim_mbuf_append(struct rte_mbuf *frame, uint16_t count)
{
	return rte_pktmbuf_append(frame, count);
}

char *dpdk_shim_mbuf_prepend(struct rte_mbuf *frame, uint16_t count)
{
	return rte_pktmbuf_prepend(frame, count);
}

char *dpdk_shim_mbuf_adj(struct rte_mbuf *frame, uint16_t count)
{
	return rte_pktmbuf_adj(frame, count);
}

void dpdk_shim_mbuf_truncate(struct rte_mbuf *frame, uint32_t length)
{
	struct rte_mbuf *segment = frame, *rest;
	uint32_t left = length;

	frame->nb_segs = 1;
	frame->pkt_len = length;
	while (left > segment->data_len && segment->next != NULL) {
		left -= segment->data_len;
		segment = segment->next;
		frame->nb_segs++;
	}
	segment->data_len = (uint16_t)left;
	rest = segment->next;
	segment->next = NULL;
	if (rest != NULL)
		rte_pktmbuf_free(rest);
}

void dpdk_shim_mbuf_copy(const struct rte_mbuf *frame, uint32_t length, char *into)
{
	const char *bytes = rte_pktmbuf_read(frame, 0, length, into);

	if (bytes != NULL && bytes != into)
		memcpy(into, bytes, length);
}

int dpdk_shim_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

uint16_t dpdk_shim_data_room_size(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

uint32_t dpdk_shim_mempool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

uint32_t dpdk_shim_mempool_element_len(const struct rte_mempool *pool)
{
	return pool->header_size + pool->elt_size + pool->trailer_size;
}

uint64_t dpdk_shim_mempool_offset(const struct rte_mempool *pool, const void *object)
{
	const struct rte_mempool_memhdr *first = STAILQ_FIRST(&pool->mem_list);

	return (uint64_t)((uintptr_t)object - pool->header_size - (uintptr_t)first->addr);
}

int dpdk_shim_errno(void)
{
	return rte_errno;
}

uint64_t dpdk_shim_tsc(void)
{
	return rte_rdtsc();
}

int dpdk_shim_link(uint16_t port, uint32_t *speed)
{
	struct rte_eth_link link;
	int result;

	memset(&link, 0, sizeof(link));
	result = rte_eth_link_get_nowait(port, &link);
	if (result < 0)
		return result;
	*speed = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

/* One of the requests of netdevice(7) about an interface. */
static int interface_request(unsigned int index, unsigned long what, struct ifreq *request)
{
	int descriptor, result;

	memset(request, 0, sizeof(*request));
	if (if_indextoname(index, request->ifr_name) == NULL)
		return -errno;
	descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (descriptor < 0)
		return -errno;
	result = ioctl(descriptor, what, request) < 0 ? -errno : 0;
	close(descriptor);
	return result;
}

int dpdk_shim_interface_mtu(unsigned int index)
{
	struct ifreq request;
	int result = interface_request(index, SIOCGIFMTU, &request);

	return result < 0 ? result : request.ifr_mtu;
}

int dpdk_shim_interface_running(unsigned int index)
{
	struct ifreq request;
	int result = interface_request(index, SIOCGIFFLAGS, &request);

	if (result < 0)
		return result;
	return (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
}

static int find_bonding(struct dl_phdr_info *object, size_t size, void *found)
{
	(void)size;
	if (strstr(object->dlpi_name, "librte_net_bond.so") == NULL)
		return 0;
	*(const char **)found = object->dlpi_name;
	return 1;
}

/* A function of the bonding driver, which the EAL loads by itself: the gateway is not linked with it. */
static void *bonding_function(const char *name)
{
	void *function = dlsym(RTLD_DEFAULT, name), *handle;
	const char *path = NULL;

	if (function != NULL || dl_iterate_phdr(find_bonding, &path) == 0)
		return function;
	handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	if (handle == NULL)
		return NULL;
	function = dlsym(handle, name);
	dlclose(handle);
	return function;
}

int dpdk_shim_bond_primary(uint16_t bond)
{
	/* BONDING_MODE_ACTIVE_BACKUP */
	const int active_backup = 1;
	int (*mode)(uint16_t), (*primary)(uint16_t);

	*(void **)&mode = bonding_function("rte_eth_bond_mode_get");
	*(void **)&primary = bonding_function("rte_eth_bond_primary_get");
	if (mode == NULL || primary == NULL || mode(bond) != active_backup)
		return -ENOTSUP;
	return primary(bond);
}

int dpdk_shim_bond_primary_set(uint16_t bond, uint16_t member)
{
	int (*set)(uint16_t, uint16_t);

	*(void **)&set = bonding_function("rte_eth_bond_primary_set");
	return set == NULL ? -ENOTSUP : set(bond, member);
}

static ssize_t log_write(void *cookie, const char *message, size_t length)
{
	/* A function pointer does not fit a void * by the letter of C; POSIX says that it does. */
	((dpdk_shim_log_sink)cookie)((uint32_t)rte_log_cur_msg_loglevel(), message, length);
	return (ssize_t)length;
}

int dpdk_shim_log_to(dpdk_shim_log_sink sink)
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie((void *)sink, "w", functions);

	if (stream == NULL)
		return -errno;
	/* rte_vlog flushes after each message: a message is one write. */
	return rte_openlog_stream(stream);
}

static dpdk_shim_log_sink bpf_sink;

/* The level is the library's own: what it calls a warning is mostly news of a feature that the kernel lacks. */
static int bpf_print(int level, const char *format, va_list arguments)
{
	char line[512];
	int length = vsnprintf(line, sizeof(line), format, arguments);

	(void)level;
	if (length > 0)
		bpf_sink(RTE_LOG_DEBUG, line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1);
	return length;
}

static void set_bpf_print(const char *library, const char *function)
{
	void *handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
	void *(*set_print)(int (*print)(int, const char *, va_list));

	if (handle == NULL)
		return;
	*(void **)&set_print = dlsym(handle, function);
	if (set_print != NULL)
		set_print(bpf_print);
	dlclose(handle);
}

void dpdk_shim_bpf_log_to(dpdk_shim_log_sink sink)
{
	bpf_sink = sink;
	set_bpf_print("libbpf.so.1", "libbpf_set_print");
	set_bpf_print("libxdp.so.1", "libxdp_set_print");
}
