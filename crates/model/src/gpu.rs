//! GPUs, their models and their slices.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::GpuUuid;

/// A GPU's product name without its vendor, words joined by dashes: `A100-SXM4-40GB`.
///
/// The exporter writes `NVIDIA A100-SXM4-40GB`, feature discovery writes
/// `NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED`: both are the same model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[doc(alias = "nvidia.com/gpu.product")]
pub struct GpuModel(Arc<str>);

impl GpuModel {
    /// From any of the spellings in use; `None` when nothing is left of the text.
    pub fn parse(product: &str) -> Option<Self> {
        let mut name = product.trim().replace([' ', '_'], "-");
        for vendor in ["NVIDIA-", "Tesla-"] {
            if let Some(rest) = name.strip_prefix(vendor) {
                name = rest.to_owned();
            }
        }
        if let Some(rest) = name.strip_suffix("-SHARED") {
            name = rest.to_owned();
        }
        if let Some(at) = name.find("-MIG-") {
            name.truncate(at);
        }
        (!name.is_empty()).then(|| Self(name.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for GpuModel {
    fn from(text: String) -> Self {
        Self::parse(&text).unwrap_or(Self(text.into()))
    }
}

impl From<GpuModel> for String {
    fn from(model: GpuModel) -> Self {
        model.0.as_ref().to_owned()
    }
}

impl fmt::Display for GpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A GPU, or the GPU instance on it that a sample or a holder speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// The whole device.
    pub uuid: GpuUuid,
    /// The MIG GPU instance; `None` for the whole device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance: Option<GpuInstance>,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{}/{} ({})", self.uuid, instance.id, instance.profile),
            None => write!(f, "{}", self.uuid),
        }
    }
}

/// A MIG GPU instance. The pair is its identity: after a new layout the same id may be another
/// profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[doc(alias = "GPU_I_ID")]
pub struct GpuInstance {
    /// NVML's GPU instance id, unique on its device.
    pub id: u32,
    /// What it was created as.
    pub profile: MigProfile,
}

/// A MIG profile: compute slices, nominal memory, and what else it carries, as in `1g.10gb+me`.
///
/// The memory in the name is nominal: usable bytes come from the tables or from the device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[doc(alias = "GPU_I_PROFILE")]
pub struct MigProfile {
    slices: u8,
    memory_gb: u16,
    extra: MigExtra,
}

/// What a MIG profile carries beyond compute and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MigExtra {
    /// Nothing more.
    Plain,
    /// Media engines: `+me`.
    MediaEngine,
    /// All media engines: `+me.all`.
    AllMediaEngines,
    /// Without media engines: `-me`.
    NoMediaEngine,
    /// Graphics: `+gfx`.
    Graphics,
}

impl MigExtra {
    const NAMED: [(Self, &'static str); 4] = [
        (Self::AllMediaEngines, "+me.all"),
        (Self::MediaEngine, "+me"),
        (Self::NoMediaEngine, "-me"),
        (Self::Graphics, "+gfx"),
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::MediaEngine => "+me",
            Self::AllMediaEngines => "+me.all",
            Self::NoMediaEngine => "-me",
            Self::Graphics => "+gfx",
        }
    }
}

impl MigProfile {
    /// From its parts. `slices` and `memory_gb` are those of the name.
    pub const fn new(slices: u8, memory_gb: u16, extra: MigExtra) -> Self {
        Self { slices, memory_gb, extra }
    }

    /// Compute slices.
    pub const fn slices(&self) -> u8 {
        self.slices
    }

    /// Memory in the name, in GB.
    pub const fn memory_gb(&self) -> u16 {
        self.memory_gb
    }

    /// What else it carries.
    pub const fn extra(&self) -> MigExtra {
        self.extra
    }

    /// How Kubernetes spells it as part of a resource name, where `+` is not allowed.
    pub fn resource_suffix(&self) -> String {
        self.to_string().replace('+', ".")
    }
}

/// Text that is no MIG profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMigProfileError {
    /// What was read, at most 64 characters of it.
    pub text: String,
}

impl fmt::Display for ParseMigProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no MIG profile such as `1g.10gb` or `1g.10gb+me`", self.text)
    }
}

impl std::error::Error for ParseMigProfileError {}

impl FromStr for MigProfile {
    type Err = ParseMigProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_profile(text)
            .ok_or_else(|| ParseMigProfileError { text: text.chars().take(64).collect() })
    }
}

fn parse_profile(text: &str) -> Option<MigProfile> {
    let (slices, rest) = text.split_once("g.")?;
    let (memory, rest) = rest.split_once("gb")?;
    // `1g.10gb.me` is how the resource name spells `1g.10gb+me`.
    let extra = match rest {
        "" => MigExtra::Plain,
        _ => {
            let rest = match rest.strip_prefix('.') {
                Some(named) => format!("+{named}"),
                None => rest.to_owned(),
            };
            MigExtra::NAMED.iter().find(|(_, suffix)| *suffix == rest)?.0
        }
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(slices) || !digits(memory) {
        return None;
    }
    let (slices, memory_gb) = (slices.parse().ok()?, memory.parse().ok()?);
    // Eight memory slices are the most that any device has.
    ((1..=8).contains(&slices) && memory_gb > 0).then_some(MigProfile { slices, memory_gb, extra })
}

impl TryFrom<String> for MigProfile {
    type Error = ParseMigProfileError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MigProfile> for String {
    fn from(profile: MigProfile) -> Self {
        profile.to_string()
    }
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}g.{}gb{}", self.slices, self.memory_gb, self.extra.suffix())
    }
}

/// A kind of GPU that a pod requests and a node offers, as an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GpuResource {
    /// `nvidia.com/gpu`: a whole device, or a replica of one where the node does not rename.
    Whole,
    /// `nvidia.com/gpu.shared`: a replica of a device that several pods share.
    Shared,
    /// `nvidia.com/mig-<profile>`: a GPU instance.
    Mig(MigProfile),
    /// `nvidia.com/mig-<profile>.shared`: a replica of a GPU instance.
    MigShared(MigProfile),
}

impl GpuResource {
    /// From the name of an extended resource; `None` when it is none of NVIDIA's GPUs.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("nvidia.com/")?;
        match name {
            "gpu" => Some(Self::Whole),
            // The second spelling is that of an earlier release of this project.
            "gpu.shared" | "gpu-shared" => Some(Self::Shared),
            _ => {
                let profile = name.strip_prefix("mig-")?;
                match profile.strip_suffix(".shared") {
                    Some(profile) => profile.parse().ok().map(Self::MigShared),
                    None => profile.parse().ok().map(Self::Mig),
                }
            }
        }
    }
}

impl fmt::Display for GpuResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("nvidia.com/gpu"),
            Self::Shared => f.write_str("nvidia.com/gpu.shared"),
            Self::Mig(profile) => write!(f, "nvidia.com/mig-{}", profile.resource_suffix()),
            Self::MigShared(profile) => {
                write!(f, "nvidia.com/mig-{}.shared", profile.resource_suffix())
            }
        }
    }
}

/// Text that names no GPU resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseGpuResourceError {
    /// What was read, at most 64 characters of it.
    pub text: String,
}

impl fmt::Display for ParseGpuResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no GPU resource such as `nvidia.com/gpu`", self.text)
    }
}

impl std::error::Error for ParseGpuResourceError {}

impl TryFrom<String> for GpuResource {
    type Error = ParseGpuResourceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
            .ok_or_else(|| ParseGpuResourceError { text: text.chars().take(64).collect() })
    }
}

impl From<GpuResource> for String {
    fn from(resource: GpuResource) -> Self {
        resource.to_string()
    }
}

/// So many of one GPU resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCount {
    /// Which resource.
    pub resource: GpuResource,
    /// How many.
    pub count: u32,
}

/// A part of a GPU, or of what a pod holds: so many of so many equal parts.
///
/// Parts of one GPU that do not overlap add up to at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuShare {
    part: u32,
    of: u32,
}

impl GpuShare {
    /// Nothing.
    pub const NONE: Self = Self { part: 0, of: 1 };
    /// All of it.
    pub const ALL: Self = Self { part: 1, of: 1 };

    /// `None` when `of` is zero or `part` is more than `of`.
    pub const fn new(part: u32, of: u32) -> Option<Self> {
        if of == 0 || part > of { None } else { Some(Self { part, of }) }
    }

    /// How many parts.
    pub const fn part(self) -> u32 {
        self.part
    }

    /// Of how many.
    pub const fn of(self) -> u32 {
        self.of
    }

    /// What is left of the whole.
    pub const fn rest(self) -> Self {
        Self { part: self.of - self.part, of: self.of }
    }

    /// As a ratio, for display and comparison.
    pub fn as_ratio(self) -> crate::Ratio {
        crate::Ratio::new(f64::from(self.part) / f64::from(self.of)).expect("part is at most of")
    }
}

impl fmt::Display for GpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_has_many_spellings() {
        let names = ["NVIDIA A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED"];
        for name in names {
            assert_eq!(GpuModel::parse(name).expect("named").as_str(), "A100-SXM4-40GB");
        }
        assert_eq!(GpuModel::parse("Tesla T4").expect("named").as_str(), "T4");
        assert_eq!(GpuModel::parse("NVIDIA "), Some(GpuModel("NVIDIA".into())));
        assert_eq!(GpuModel::parse(" "), None);
    }

    #[test]
    fn profiles_round_trip_through_their_resource_name() {
        for text in ["1g.5gb", "1g.10gb+me", "7g.80gb", "1g.24gb+me.all", "2g.48gb+gfx"] {
            let profile: MigProfile = text.parse().expect(text);
            assert_eq!(profile.to_string(), text);
            let resource = GpuResource::Mig(profile);
            assert_eq!(GpuResource::parse(&resource.to_string()), Some(resource));
        }
        for bad in ["", "g.5gb", "1g.5", "0g.5gb", "9g.5gb", "1g.0gb", "1g.5gb+x", "+1g.5gb"] {
            assert!(bad.parse::<MigProfile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_resource_of_another_vendor_is_no_gpu_of_ours() {
        assert_eq!(GpuResource::parse("amd.com/gpu"), None);
        assert_eq!(GpuResource::parse("nvidia.com/hostdev"), None);
    }
}
