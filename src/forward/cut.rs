//! Packets of IPv4 larger than the link that they go to, cut into fragments (RFC 791, 3.2) before anything else is done to them.
//!
//! What comes out is processed like fragments that were sent so. Thus each mode needs nothing of its own: in TUN mode it is the inner
//! packet that is cut, and one that becomes a packet of IPv6 is cut while it is of IPv4.

use super::verdict::DropReason;
use crate::port::Frame;
use crate::wire::fragment::{Piece, UNIT};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{be16, ethernet};

/// Pieces that one packet is cut into at most: what 1,500 bytes need on the smallest link, and 9,000 on one of 200.
pub const MOST_PIECES: usize = 64;
/// Bytes of the longest headers in front of a piece.
const FRONT: usize = ethernet::LEN + ipv4::MAX_LEN;
/// Options: the end of all, nothing, and the bit that says: in every fragment (RFC 791, 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const IN_EVERY_FRAGMENT: u8 = 0x80;

/// Cuts a packet of IPv4 whose headers are sound, and that may be cut, into packets of at most `mtu` bytes, in buffers of the pool that
/// its own is of. On an error some may have come out already.
pub fn cut<F: Frame>(frame: &F, mtu: u16, mut out: impl FnMut(F)) -> Result<(), DropReason> {
    let (link, packet) = frame.bytes().split_at_checked(ethernet::LEN).ok_or(DropReason::Truncated)?;
    let header = Ipv4::new(packet).ok_or(DropReason::Truncated)?;
    let header_len = header.header_len();
    // All of it must be in one segment.
    let packet = packet.get(..header.total_len().into()).ok_or(DropReason::TooBig)?;
    let (ip, data) = packet.split_at_checked(header_len).ok_or(DropReason::BadIpv4Header)?;
    let identification = ip.first_chunk::<{ ipv4::MIN_LEN }>().map_or(0, |ip| be16!(ip, 4));
    let none = Piece { identification: identification.into(), offset: 0, more: false, data_at: 0 };
    let whole = header.piece().unwrap_or(none);
    let room = usize::from(mtu).saturating_sub(header_len) / usize::from(UNIT) * usize::from(UNIT);
    if room == 0 || data.len().div_ceil(room) > MOST_PIECES {
        return Err(DropReason::TooBig);
    }
    let last = data.chunks(room).len() - 1;
    let mut offset = whole.offset;
    for (number, chunk) in data.chunks(room).enumerate() {
        let piece = Piece { offset, more: number < last || whole.more, ..whole };
        let mut front = [0; FRONT];
        let Some(front) = front.get_mut(..ethernet::LEN + header_len) else { return Err(DropReason::BadIpv4Header) };
        let (front_link, front_ip) = front.split_at_mut(ethernet::LEN);
        front_link.copy_from_slice(link);
        front_ip.copy_from_slice(ip);
        make_header(front_ip, piece, chunk.len());
        out(frame.another(front, chunk).ok_or(DropReason::NoBuffer)?);
        offset = offset.saturating_add(u16::try_from(chunk.len()).unwrap_or(u16::MAX));
    }
    Ok(())
}

/// Makes the header of a piece from that of the packet.
fn make_header(ip: &mut [u8], piece: Piece, data: usize) {
    let Ok(total_len) = u16::try_from(ip.len() + data) else { return };
    let Some((fixed, options)) = ip.split_first_chunk_mut::<{ ipv4::MIN_LEN }>() else { return };
    fixed[2..4].copy_from_slice(&total_len.to_be_bytes());
    fixed[4..8].copy_from_slice(&piece.to_ipv4());
    if piece.is_later() {
        keep_options_of_later(options);
    }
    ipv4::make_checksum(ip);
}

/// Puts nothing in the place of options that are for the first fragment alone.
fn keep_options_of_later(mut options: &mut [u8]) {
    while let Some(&kind) = options.first()
        && kind != END_OF_OPTIONS
    {
        let len = if kind == NO_OPERATION { 1 } else { options.get(1).copied().unwrap_or(0).max(2).into() };
        let (option, rest) = options.split_at_mut(len.min(options.len()));
        if kind & IN_EVERY_FRAGMENT == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::port::memory::MemoryFrame;

    /// A packet with these options and so many bytes of data that count up.
    fn packet(options: &[u8], data: usize) -> Vec<u8> {
        let header_len = 20 + options.len();
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let total_len = u16::try_from(header_len + data).unwrap();
        let mut ip = [&ipv4::header(total_len, (7, 64), 17, (from, to), (0xabcd, false))[..], options].concat();
        ip[0] = 0x40 + u8::try_from(header_len / 4).unwrap();
        ipv4::make_checksum(&mut ip);
        let data = (0..data).map(|n| u8::try_from(n % 251).unwrap());
        [&[2; 12][..], &[8, 0], &ip].concat().into_iter().chain(data).collect()
    }

    fn pieces(frame: &MemoryFrame, mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut out = Vec::new();
        cut(frame, mtu, |piece: MemoryFrame| out.push(piece.bytes().to_vec()))?;
        Ok(out)
    }

    /// Puts pieces together, having looked at their headers.
    fn joined(pieces: &[Vec<u8>], mtu: u16) -> Vec<u8> {
        let mut data = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let header = etherparse::Ipv4Header::from_slice(&piece[14..]).unwrap().0;
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), piece.len() - 14);
            assert!(header.total_len <= mtu);
            assert_eq!((header.identification, header.more_fragments), (0xabcd, number + 1 < pieces.len()));
            assert_eq!(usize::from(header.fragment_offset.value()) * 8, data.len());
            data.extend_from_slice(&piece[14 + header.header_len()..]);
        }
        data
    }

    #[test]
    fn pieces_put_together_are_the_packet_and_each_fits() {
        for (data, mtu) in [(1480, 1499), (1480, 576), (3000, 1500), (8972, 1500), (1480, 68)] {
            let whole = packet(&[], data);
            let pieces = pieces(&MemoryFrame::new(&whole), mtu).unwrap();
            assert!(pieces.len() > 1);
            assert_eq!(joined(&pieces, mtu), whole[34..]);
        }
    }

    #[test]
    fn a_piece_is_cut_further() {
        let whole = packet(&[], 3000);
        let coarse = pieces(&MemoryFrame::new(&whole), 1500).unwrap();
        let fine: Vec<_> = coarse.iter().flat_map(|piece| pieces(&MemoryFrame::new(piece), 600).unwrap()).collect();
        assert_eq!(joined(&fine, 600), whole[34..]);
    }

    #[test]
    fn options_go_where_they_belong() {
        // Record route for the first alone, then a security option for all, then the end.
        let options = [7, 3, 4, 130, 3, 9, 0, 0];
        let pieces = pieces(&MemoryFrame::new(&packet(&options, 1000)), 500).unwrap();
        assert_eq!(pieces[0][34..42], options);
        assert!(pieces[1..].iter().all(|piece| piece[34..42] == [1, 1, 1, 130, 3, 9, 0, 0]));
        assert_eq!(joined(&pieces, 500).len(), 1000);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert_eq!(pieces(&MemoryFrame::new(&packet(&[], 1000)), 27), Err(DropReason::TooBig), "no room for data");
        assert_eq!(pieces(&MemoryFrame::new(&packet(&[], 9000)), 68), Err(DropReason::TooBig), "too many pieces");
        assert_eq!(
            pieces(&MemoryFrame::new(&packet(&[], 1000)[..500]), 300),
            Err(DropReason::TooBig),
            "in two segments"
        );
    }
}
