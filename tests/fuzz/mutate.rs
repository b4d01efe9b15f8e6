//! Random changes to inputs, the same ones in every run.

use crate::random::Random;

/// One of the inputs changed a few times, or parts of two; never longer than `longest`.
pub fn mutated(random: &mut Random, inputs: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut input = inputs[below(random, inputs.len())].clone();
    if below(random, 4) == 0 {
        let other = &inputs[below(random, inputs.len())];
        input.truncate(below(random, input.len() + 1));
        input.extend(&other[below(random, other.len() + 1)..]);
    }
    for _change in 0..1 << below(random, 4) {
        change(random, &mut input);
    }
    input.truncate(longest);
    input
}

/// Below `count`, which is some thousands at most and not 0.
fn below(random: &mut Random, count: usize) -> usize {
    random.below(count as u32) as usize
}

fn byte(random: &mut Random) -> u8 {
    random.below(256) as u8
}

fn change(random: &mut Random, input: &mut Vec<u8>) {
    let at = below(random, input.len().max(1));
    match below(random, 6) {
        0 => {
            let new: Vec<u8> = (0..=below(random, 8)).map(|_| byte(random)).collect();
            input.splice(at.min(input.len())..at.min(input.len()), new);
        }
        1 if !input.is_empty() => {
            let end = (at + 1 + below(random, 8)).min(input.len());
            input.drain(at..end);
        }
        2 if !input.is_empty() => {
            let end = (at + 1 + below(random, 32)).min(input.len());
            let to = below(random, input.len() + 1);
            let copy = input[at..end].to_vec();
            input.splice(to..to, copy);
        }
        3 if !input.is_empty() => input[at] ^= 1 << below(random, 8),
        4 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'-'][below(random, 8)],
        _ if !input.is_empty() => input[at] = byte(random),
        _ => input.push(byte(random)),
    }
}
