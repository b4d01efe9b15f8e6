/* What bindgen reads: the DPDK headers that the gateway uses, and names for what they define as static inline
 * functions, macros with casts, or fields of structures whose layout differs between releases.
 */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Offsets of the fields of struct rte_mbuf that are read on the data path, which must not call a function for it. */
static const size_t DPDK_SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);   /* void * */
static const size_t DPDK_SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);   /* uint16_t */
static const size_t DPDK_SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);     /* uint16_t */
static const size_t DPDK_SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);   /* uint64_t */
static const size_t DPDK_SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);     /* uint32_t */
static const size_t DPDK_SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);   /* uint16_t */
static const size_t DPDK_SHIM_MBUF_POOL = offsetof(struct rte_mbuf, pool);           /* struct rte_mempool * */
static const size_t DPDK_SHIM_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci);   /* uint16_t */
static const size_t DPDK_SHIM_MBUF_SIZE = sizeof(struct rte_mbuf);

static const uint64_t DPDK_SHIM_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t DPDK_SHIM_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t DPDK_SHIM_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t DPDK_SHIM_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t DPDK_SHIM_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_SHIM_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_SHIM_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;

static const uint64_t DPDK_SHIM_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_SHIM_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_SHIM_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t DPDK_SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

static const uint64_t DPDK_SHIM_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV4_SCTP = RTE_ETH_RSS_NONFRAG_IPV4_SCTP;
static const uint64_t DPDK_SHIM_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t DPDK_SHIM_RSS_NONFRAG_IPV6_SCTP = RTE_ETH_RSS_NONFRAG_IPV6_SCTP;
static const uint32_t DPDK_SHIM_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t DPDK_SHIM_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint16_t DPDK_SHIM_RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE;

static const uint32_t DPDK_SHIM_MEMPOOL_NO_SPREAD = RTE_MEMPOOL_F_NO_SPREAD;
static const uint32_t DPDK_SHIM_POOL_PRIVATE_LEN = sizeof(struct rte_pktmbuf_pool_private);
static const uint16_t DPDK_SHIM_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint16_t DPDK_SHIM_MAX_ETHPORTS = RTE_MAX_ETHPORTS;
static const uint32_t DPDK_SHIM_SPEED_UNKNOWN = RTE_ETH_SPEED_NUM_UNKNOWN;

/* rte_eth_rx_burst */
uint16_t dpdk_shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);
/* rte_eth_tx_burst */
uint16_t dpdk_shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count);
/* rte_pktmbuf_alloc */
struct rte_mbuf *dpdk_shim_mbuf_alloc(struct rte_mempool *pool);
/* rte_pktmbuf_free */
void dpdk_shim_mbuf_free(struct rte_mbuf *frame);
/* rte_pktmbuf_append */
char *dpdk_shim_mbuf_append(struct rte_mbuf *frame, uint16_t count);
/* rte_pktmbuf_prepend */
char *dpdk_shim_mbuf_prepend(struct rte_mbuf *frame, uint16_t count);
/* rte_pktmbuf_adj */
char *dpdk_shim_mbuf_adj(struct rte_mbuf *frame, uint16_t count);
/* Cuts a packet to so many bytes, which it has, and gives segments back that are left empty; the first stays. */
void dpdk_shim_mbuf_truncate(struct rte_mbuf *frame, uint32_t length);
/* Copies the `length` bytes of a packet, over all its segments. */
void dpdk_shim_mbuf_copy(const struct rte_mbuf *frame, uint32_t length, char *into);
/* rte_pktmbuf_chain */
int dpdk_shim_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
/* rte_pktmbuf_data_room_size */
uint16_t dpdk_shim_data_room_size(struct rte_mempool *pool);
/* Objects that the pool was made with. */
uint32_t dpdk_shim_mempool_size(const struct rte_mempool *pool);
/* Bytes of one element of a pool: its header, the object, its trailer. */
uint32_t dpdk_shim_mempool_element_len(const struct rte_mempool *pool);
/* Bytes from the start of the pool's first piece of memory to the header of the element that an object is in. */
uint64_t dpdk_shim_mempool_offset(const struct rte_mempool *pool, const void *object);
/* rte_errno of the calling thread */
int dpdk_shim_errno(void);
/* rte_rdtsc */
uint64_t dpdk_shim_tsc(void);
/* Whether the link is up; fills the speed in Mbit/s. Negative errno on failure. */
int dpdk_shim_link(uint16_t port, uint32_t *speed);
/* MTU of a kernel interface of the calling thread's network namespace; negative errno on failure. */
int dpdk_shim_interface_mtu(unsigned int index);
/* Whether that interface is up and has a carrier: 1 or 0; negative errno on failure. */
int dpdk_shim_interface_running(unsigned int index);

/* The member that an active-backup bond uses; -ENOTSUP for a bond of another mode and without a bonding driver. */
int dpdk_shim_bond_primary(uint16_t bond);
/* rte_eth_bond_primary_set; -ENOTSUP without a bonding driver. */
int dpdk_shim_bond_primary_set(uint16_t bond, uint16_t member);

/* Takes one message of DPDK's log: its level (RTE_LOG_*), its bytes, how many. */
typedef void (*dpdk_shim_log_sink)(uint32_t level, const char *message, size_t length);
/* Sends DPDK's log to `sink` from here on; negative errno on failure. */
int dpdk_shim_log_to(dpdk_shim_log_sink sink);
/* Sends what libbpf and libxdp would print to stderr to the same place, as RTE_LOG_DEBUG. Does nothing for a library
 * that no PMD has loaded. */
void dpdk_shim_bpf_log_to(dpdk_shim_log_sink sink);

#endif
