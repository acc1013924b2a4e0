//! GPUs that exist in a variable only.
//!
//! `CHRONOS_FAKE_GPUS` is a list of `key=value`, or the path of a file that holds one and is read
//! again for every look, so that a GPU can vanish while it is leased. Keys: `count` (default 2),
//! `memory` (of each, default 80GiB), `checkpoint` (`yes` when suspended memory leaves the GPU),
//! `lost` (number of a GPU that has fallen off the bus), `node` (path of a device node that all of
//! them have), `links` (GPUs in one island: `links=4` joins 0 to 3 and 4 to 7).

use std::path::Path;

use gpu_autoscaler_model::Bytes;

use super::Usage;
use crate::lease::{DeviceNode, GPUS_MAX, Gpu, GpuId, Vendor};
use crate::os::device;
use crate::os::fault::Fault;
use crate::size;

/// GPUs as a text describes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fake {
    described: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Description {
    count: usize,
    memory: Bytes,
    checkpoint: bool,
    lost: Option<usize>,
    node: Option<DeviceNode>,
    island: usize,
}

impl Fake {
    /// The GPUs of a text, or of the file that it names.
    pub fn new(described: &str) -> Self {
        Self { described: described.to_owned() }
    }

    fn description(&self) -> Result<Description, Fault> {
        let text = if self.described.starts_with('/') {
            std::fs::read_to_string(&self.described)
                .map_err(|e| Fault::os("read", &self.described, e))?
        } else {
            self.described.clone()
        };
        describe(text.trim())
            .map_err(|why| Fault::Setting { origin: "CHRONOS_FAKE_GPUS".into(), why })
    }

    /// The GPUs.
    ///
    /// # Errors
    /// [`Fault::Setting`] when the text describes none.
    pub fn gpus(&self) -> Result<Vec<Gpu>, Fault> {
        let described = self.description()?;
        let gpu = |index: usize| Gpu {
            id: GpuId(format!("FAKE-{index}")),
            index: index as u32,
            name: "Fake GPU".into(),
            vendor: Vendor::Declared,
            memory: described.memory,
            foreign: None,
            fault: (described.lost == Some(index)).then(|| "it has fallen off the bus".to_owned()),
            links: (0..described.count)
                .map(|other| {
                    if other == index {
                        0
                    } else if other / described.island == index / described.island {
                        1
                    } else {
                        10
                    }
                })
                .collect(),
            nodes: described.node.into_iter().collect(),
        };
        Ok((0..described.count).map(gpu).collect())
    }

    /// Nobody computes on a fake GPU.
    ///
    /// # Errors
    /// None.
    pub fn processes(&self) -> Result<Vec<Usage>, Fault> {
        Ok(Vec::new())
    }

    /// Succeeds where the text says so.
    ///
    /// # Errors
    /// [`Fault::Backend`] where it does not.
    pub fn checkpoint(&self) -> Result<(), Fault> {
        if self.description()?.checkpoint {
            return Ok(());
        }
        Err(Fault::Backend {
            backend: "fake",
            why: "it was described without `checkpoint=yes`".into(),
        })
    }
}

fn describe(text: &str) -> Result<Description, String> {
    let mut described = Description {
        count: 2,
        memory: Bytes::new(80 << 30),
        checkpoint: false,
        lost: None,
        node: None,
        island: GPUS_MAX,
    };
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` has no `=`"))?;
        let number = || value.parse::<usize>().map_err(|_| format!("{key} `{value}` is no number"));
        match key {
            "count" => described.count = number()?.min(GPUS_MAX),
            "memory" => described.memory = size::parse(value).map_err(|e| e.to_string())?,
            "checkpoint" => described.checkpoint = value == "yes",
            "lost" => described.lost = Some(number()?),
            "links" => described.island = number()?.max(1),
            "node" => described.node = Some(node(value)?),
            _ => return Err(format!("`{key}` is not known")),
        }
    }
    Ok(described)
}

fn node(path: &str) -> Result<DeviceNode, String> {
    device::node(Path::new(path)).ok_or_else(|| format!("node `{path}` is no character device"))
}
