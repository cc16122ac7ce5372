//! Chain ids (OCI image specification, "Layer ChainID"): the name of a layer together with all layers below it.

use mysup_ipc::id::Digest;

use super::config::digest_of;

/// One for each layer, bottom first. The lowest layer's is its own digest.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(chained(chains.last(), diff_id));
    }
    chains
}

/// The chain id of a layer on top of another one.
pub(super) fn chained(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => diff_id.clone(),
        Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_those_of_the_specification() {
        let digest =
            |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().expect("a digest");
        let (one, two) = (digest("a"), digest("b"));
        let both = format!("{one} {two}");
        assert_eq!(chain_ids(&[one.clone(), two.clone()]), [one.clone(), digest_of(both.as_bytes())]);
        assert_ne!(chain_ids(&[two, one.clone()]).last(), chain_ids(&[one]).last());
        assert!(chain_ids(&[]).is_empty());
    }
}
