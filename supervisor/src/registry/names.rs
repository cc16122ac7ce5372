//! Names for containers whose user gave none: `adjective_surname`, as docker's, with people of computing and science.

use mysup_ipc::id::ContainerName;

const ADJECTIVES: [&str; 64] = [
    "admiring",
    "agile",
    "amazing",
    "blissful",
    "bold",
    "boring",
    "brave",
    "bright",
    "busy",
    "calm",
    "charming",
    "clever",
    "cool",
    "curious",
    "dazzling",
    "determined",
    "eager",
    "ecstatic",
    "elastic",
    "elegant",
    "epic",
    "fervent",
    "focused",
    "friendly",
    "gallant",
    "gifted",
    "gracious",
    "happy",
    "hopeful",
    "hungry",
    "infallible",
    "inspiring",
    "intelligent",
    "jolly",
    "jovial",
    "keen",
    "kind",
    "laughing",
    "loving",
    "lucid",
    "magical",
    "modest",
    "musing",
    "nifty",
    "nostalgic",
    "objective",
    "optimistic",
    "peaceful",
    "practical",
    "quirky",
    "quizzical",
    "relaxed",
    "reverent",
    "romantic",
    "serene",
    "sharp",
    "silly",
    "sleepy",
    "stoic",
    "sweet",
    "tender",
    "trusting",
    "vibrant",
    "wizardly",
];

const SURNAMES: [&str; 64] = [
    "allen",
    "almeida",
    "archimedes",
    "babbage",
    "bardeen",
    "bell",
    "blackwell",
    "bohr",
    "boyd",
    "brown",
    "carson",
    "cerf",
    "curie",
    "darwin",
    "dijkstra",
    "diffie",
    "einstein",
    "engelbart",
    "euclid",
    "euler",
    "fermat",
    "feynman",
    "galileo",
    "galois",
    "gauss",
    "goldberg",
    "goodall",
    "hamilton",
    "hawking",
    "hellman",
    "hertz",
    "hodgkin",
    "hopper",
    "hypatia",
    "jackson",
    "jennings",
    "johnson",
    "kare",
    "keller",
    "kepler",
    "knuth",
    "lamarr",
    "lamport",
    "leavitt",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "noether",
    "pasteur",
    "perlman",
    "ritchie",
    "rosalind",
    "sammet",
    "shannon",
    "stallman",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "wozniak",
];

/// How many times a free name is looked for before digits are added without bound.
const TRIES: usize = 8;

/// A name that `taken` does not know; `random` seeds the choice.
pub(crate) fn generate(random: [u8; 32], taken: impl Fn(&ContainerName) -> bool) -> ContainerName {
    for pair in random.chunks_exact(2).take(TRIES) {
        if let Some(name) = pick(pair[0], pair[1]).filter(|name| !taken(name)) {
            return name;
        }
    }
    let base = pick(random[0] | 1, 0).map_or_else(|| "happy_allen".to_owned(), String::from);
    (0_u64..)
        .filter_map(|number| format!("{base}{number}").parse().ok())
        .find(|name| !taken(name))
        .expect("there are more numbers than containers, and base and number are a valid name")
}

fn pick(adjective: u8, surname: u8) -> Option<ContainerName> {
    let adjective = ADJECTIVES[usize::from(adjective) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(surname) % SURNAMES.len()];
    // Steve Wozniak is not boring.
    if (adjective, surname) == ("boring", "wozniak") {
        None
    } else {
        format!("{adjective}_{surname}").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_a_name_and_wozniak_is_never_boring() {
        let mut count = 0;
        for adjective in 0..64 {
            for surname in 0..64 {
                if let Some(name) = pick(adjective, surname) {
                    assert_ne!(name.as_str(), "boring_wozniak");
                    count += 1;
                }
            }
        }
        assert_eq!(count, 64 * 64 - 1);
    }

    #[test]
    fn a_collision_adds_a_number() {
        let name = generate([5; 32], |name| !name.as_str().ends_with('3'));
        assert!(name.as_str().ends_with('3'), "{name}");
        assert!(name.as_str().contains('_'));
    }
}
