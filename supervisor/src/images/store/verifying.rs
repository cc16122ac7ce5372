//! Whether what is listed is what came in: configuration, contents of all files, and everything else about them.

use std::io;

use mysup_ipc::id::Digest;
use sha2::{Digest as _, Sha256};

use super::Store;
use crate::images::{
    cancel::Cancel,
    census,
    config::{Image, digest_of},
    error::ImageError,
    replay::{Replay, read_through},
};

/// What was found about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Which.
    pub(crate) image: Image,
    /// What is wrong, one line each; nothing if it is whole.
    pub(crate) faults: Vec<String>,
}

impl Store {
    /// Verifies images by name, id or prefix; all if none is named. A layer of several is read once.
    ///
    /// # Errors
    /// If there is no such image, or the switch is thrown.
    pub(crate) fn verify(&self, references: &[String], cancel: &Cancel) -> Result<Vec<Verdict>, ImageError> {
        let images = match references {
            [] => self.list_all().into_iter().map(|(image, _)| image).collect(),
            names => names.iter().map(|name| self.resolve(name)).collect::<Result<Vec<_>, _>>()?,
        };
        let _pin = self.pin(images.iter().flat_map(Image::chains).collect());
        let mut seen: Vec<(Digest, Option<String>)> = Vec::new();
        let mut verdicts = Vec::new();
        for image in images {
            let mut faults = Vec::new();
            let record = self.state().records.get(&image.id).cloned();
            if record.is_some_and(|record| digest_of(record.configuration.as_bytes()) != image.id) {
                faults.push("its configuration has another digest".to_owned());
            }
            let mut parent = None;
            for (chain, diff_id) in image.chains().into_iter().zip(&image.layers) {
                let known = seen.iter().find(|(known, _)| *known == chain).map(|(_, fault)| fault.clone());
                let fault = match known {
                    Some(fault) => fault,
                    None => {
                        let fault = self.verify_layer(&chain, parent.as_ref(), diff_id, cancel)?;
                        seen.push((chain.clone(), fault.clone()));
                        fault
                    }
                };
                faults.extend(fault.map(|fault| format!("layer {diff_id}: {fault}")));
                parent = Some(chain);
            }
            verdicts.push(Verdict { image, faults });
        }
        Ok(verdicts)
    }

    fn verify_layer(
        &self,
        chain: &Digest,
        parent: Option<&Digest>,
        diff_id: &Digest,
        cancel: &Cancel,
    ) -> Result<Option<String>, ImageError> {
        let looked = self.look_at_layer(chain, parent, diff_id, cancel);
        match looked {
            Err(_) if cancel.is_cancelled() => Err(ImageError::Cancelled),
            Err(error) => Ok(Some(error.to_wire().message)),
            Ok(fault) => Ok(fault.map(str::to_owned)),
        }
    }

    fn look_at_layer(
        &self,
        chain: &Digest,
        parent: Option<&Digest>,
        diff_id: &Digest,
        cancel: &Cancel,
    ) -> Result<Option<&'static str>, ImageError> {
        let fault = |source| ImageError::system("read", "it", source);
        let layer = self.0.layers.stored(chain).map_err(fault)?;
        let record = layer.record().map_err(fault)?;
        if record.chain() != *chain || record.diff_id != *diff_id || record.parent.as_ref() != parent {
            return Ok(Some("its record is that of another layer"));
        }
        let tree = layer.tree().map_err(fault)?;
        if census::take(std::os::fd::AsFd::as_fd(&tree))? != record.census {
            return Ok(Some("names, owners, modes, times or attributes of its files were changed"));
        }
        let mut hasher = Sha256::new();
        let replay = Replay::new(&layer).map_err(fault)?;
        let hash = |bytes: &[u8]| {
            hasher.update(bytes);
            if cancel.is_cancelled() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
        };
        read_through(replay, hash).map_err(fault)?;
        let found = Digest::from_sha256(hasher.finalize().into());
        Ok((found != *diff_id).then_some("contents of its files were changed"))
    }
}
