//! What requests, answers and events are made of: records that carry the words of docs/reference/invoke.md.

use std::fmt::Write as _;
use strait_link::v1;

/// A JSON object that is documented.
pub trait Record {
    /// The method or event.
    const NAME: &'static str;
    /// What a method answers; empty for others.
    const THEN: &'static str;
    /// What it is.
    const SAYS: &'static [&'static str];

    /// Its fields.
    fn fields() -> Vec<Field>;

    /// Its part of the reference.
    fn section() -> String {
        let mut out = format!("### `{}`\n{}\n", Self::NAME, joined(Self::SAYS));
        if !Self::THEN.is_empty() {
            let _infallible = writeln!(out, "\nThen: {}", Self::THEN);
        }
        let fields = Self::fields();
        if !fields.is_empty() {
            out.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        }
        for Field { name, shape, optional, says } in fields {
            let optional = if optional { "?" } else { "" };
            let _infallible = writeln!(out, "| `{name}`{optional} | {shape} | {says} |");
        }
        out
    }
}

/// A field of a record.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub shape: String,
    /// Whether it may be left out.
    pub optional: bool,
    /// What it means.
    pub says: String,
}

/// The lines of a comment as a sentence.
#[must_use]
pub fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The type of a field, in words.
pub trait Shape {
    /// Whether it may be left out.
    const OPTIONAL: bool = false;

    /// In words.
    fn shape() -> String;
}

macro_rules! shapes {
    ($($type:ty => $words:literal,)+) => {
        $(impl Shape for $type {
            fn shape() -> String {
                $words.into()
            }
        })+
    };
}

shapes! {
    String => "string",
    bool => "true or false",
    u16 => "number",
    u32 => "number",
    u64 => "number",
    i64 => "number",
    usize => "number",
    f64 => "number",
    serde_json::Value => "object",
}

impl<T: Shape> Shape for Option<T> {
    const OPTIONAL: bool = true;

    fn shape() -> String {
        T::shape()
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn shape() -> String {
        format!("list of {}", T::shape())
    }
}

/// Records with a derived trait of serde: `Deserialize` for what comes in, `Serialize` for what goes out.
macro_rules! records {
    ($derive:ident: $(
        $(#[doc = $says:literal])+
        $name:ident $called:literal $(=> $then:literal)? {
            $($(#[doc = $meaning:literal])+ $field:ident: $type:ty,)*
        }
    )+) => {$(
        $(#[doc = $says])+
        #[derive($derive)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $field: $type,)*
        }

        impl Record for $name {
            const NAME: &'static str = $called;
            const THEN: &'static str = concat!($($then)?);
            const SAYS: &'static [&'static str] = &[$($says),+];

            fn fields() -> Vec<Field> {
                vec![$(Field {
                    name: stringify!($field),
                    shape: <$type as Shape>::shape(),
                    optional: <$type as Shape>::OPTIONAL,
                    says: $crate::invoke::record::joined(&[$($meaning),+]),
                }),*]
            }
        }

        impl Shape for $name {
            fn shape() -> String {
                concat!("[`", $called, "`](#", $called, ")").into()
            }
        }
    )+};
}
pub(super) use records;

/// Enumerations of the link as words.
macro_rules! words {
    ($($(#[doc = $says:literal])+ $name:ident { $($word:literal = $value:ident,)+ })+) => {$(
        $(#[doc = $says])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub v1::$name);

        impl $name {
            const WORDS: &'static [(&'static str, v1::$name)] = &[$(($word, v1::$name::$value)),+];
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let word = Self::WORDS.iter().find(|(_, value)| *value == self.0);
                to.serialize_str(word.map_or("unknown", |(word, _)| word))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                let value = Self::WORDS.iter().find(|(word, _)| *word == text);
                value.map(|(_, value)| Self(*value)).ok_or_else(|| {
                    let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                    serde::de::Error::custom(format!("{text}: one of {}", words.join(", ")))
                })
            }
        }

        impl Shape for $name {
            fn shape() -> String {
                [$(concat!("`\"", $word, "\"`")),+].join(" or ")
            }
        }
    )+};
}

words! {
    /// Sound or pictures.
    Kind { "audio" = Audio, "video" = Video, }
    /// What is shown.
    Source {
        "camera" = Camera,
        "microphone" = Microphone,
        "screen" = Screen,
        "screen-audio" = ScreenAudio,
        "other" = Other,
    }
    /// How media is protected.
    SrtpProfile {
        "AEAD_AES_128_GCM" = AeadAes128Gcm,
        "AEAD_AES_256_GCM" = AeadAes256Gcm,
        "AES128_CM_SHA1_80" = Aes128CmSha180,
        "AES128_CM_SHA1_32" = Aes128CmSha132,
    }
}
