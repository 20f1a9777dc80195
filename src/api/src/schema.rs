//! Structural schemas: one type for built-in kinds and custom resources, from pruning to protobuf.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::protobuf::Layout;

/// What a value is, in JSON and on the protobuf wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything at all (RawExtension, FieldsV1, JSON, `x-kubernetes-preserve-unknown-fields` without a type).
    Any,
    /// `true` or `false`.
    Boolean,
    /// A number of 32 bits.
    Int32,
    /// A number of 64 bits.
    Int64,
    /// A floating-point number.
    Number,
    /// Text.
    String,
    /// Base64 text in JSON, bytes in protobuf.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go's duration text (`1m30s`) in JSON, nanoseconds in protobuf.
    Duration,
    /// A quantity: `100m`, `2Gi`; a number is accepted.
    Quantity,
    /// A number or text (ports, percentages).
    IntOrString,
    /// Named properties.
    Object,
    /// Values of one schema by free names; `items` is the schema of the values.
    Map,
    /// A list; `items` is the schema of its elements.
    List,
    /// JSON schema's `items`: a schema or a list of schemas.
    SchemaOrList,
    /// JSON schema's `additionalProperties`: a schema or a boolean.
    SchemaOrBool,
    /// JSON schema's `dependencies`: a schema or a list of names.
    SchemaOrNames,
}

/// How lists merge (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Members are unique scalars.
    Set,
    /// Members are objects told apart by their keys.
    Map,
}

/// A schema that may not be finished yet: JSON schema describes itself.
#[derive(Clone)]
pub enum Link {
    /// The schema.
    Ready(Arc<Schema>),
    /// Filled once the message that contains the link is complete.
    Later(Arc<OnceLock<Arc<Schema>>>),
}

impl Link {
    /// The schema itself.
    pub fn get(&self) -> &Arc<Schema> {
        match self {
            Self::Ready(schema) => schema,
            Self::Later(cell) => cell.get().unwrap_or_else(|| any()),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(schema) => schema.fmt(f),
            Self::Later(_) => f.write_str("(itself)"),
        }
    }
}

/// A named member of an object.
#[derive(Clone, Debug)]
pub struct Property {
    /// JSON name.
    pub name: Box<str>,
    /// Protobuf field number; 0: not in protobuf.
    pub number: u32,
    /// Numbers of the inlined messages around it in protobuf, outermost first; JSON has them flat.
    pub through: Box<[u32]>,
    /// Must be given.
    pub required: bool,
    /// A pointer in Go: present and zero differs from absent.
    pub pointer: bool,
    /// A zero that is not behind a pointer is left out.
    pub omit_empty: bool,
    /// An object without content is left out too.
    pub omit_zero: bool,
    pub(crate) schema: Link,
}

impl Property {
    /// A property of a schema made at run time.
    pub fn new(name: &str, schema: Arc<Schema>) -> Self {
        Self {
            name: name.into(),
            number: 0,
            through: Box::default(),
            required: false,
            pointer: true,
            omit_empty: true,
            omit_zero: false,
            schema: Link::Ready(schema),
        }
    }

    /// Schema of its value.
    pub fn schema(&self) -> &Arc<Schema> {
        self.schema.get()
    }

    /// Go writes it even when nobody set it.
    pub fn always_written(&self) -> bool {
        !self.omit_empty || (!self.pointer && !self.omit_zero && self.schema().is_struct())
    }
}

/// The schema of one value.
#[derive(Clone, Debug)]
pub struct Schema {
    /// What the value is.
    pub kind: Type,
    /// Message of Kubernetes that it is, as `core.v1.Pod` or `meta/v1.ObjectMeta`; empty for anonymous ones.
    pub message: Box<str>,
    /// `format` as OpenAPI has it, where it is not told by the type.
    pub format: Box<str>,
    /// `null` is a value of its own.
    pub nullable: bool,
    /// Unknown fields stay (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// A whole object with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    pub embedded_resource: bool,
    /// Of a custom resource: null and wrong types are validation's to refuse, and names match in their case only.
    pub custom: bool,
    /// Value when absent.
    pub default: Option<Value>,
    /// Allowed values; empty: all.
    pub enumeration: Box<[Value]>,
    /// How a list merges.
    pub list_type: ListType,
    /// What tells members of a `map` list apart.
    pub list_keys: Box<[Box<str>]>,
    /// Replaced as a whole by server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    pub(crate) patch_strategies: Box<[Box<str>]>,
    pub(crate) patch_merge_key: Option<Box<str>>,
    pub(crate) items: Option<Link>,
    pub(crate) properties: Box<[Property]>,
    /// Which of the properties Go always writes; found at first use, when all links are complete.
    pub(crate) written: OnceLock<Box<[u16]>>,
    /// Where the properties lie in protobuf; found at first use.
    pub(crate) layout: OnceLock<Box<Layout>>,
}

impl Schema {
    /// A schema that says nothing but the type.
    pub fn of(kind: Type) -> Self {
        Self {
            kind,
            message: Box::default(),
            format: Box::default(),
            nullable: false,
            preserve_unknown: false,
            embedded_resource: false,
            custom: false,
            default: None,
            enumeration: Box::default(),
            list_type: ListType::Atomic,
            list_keys: Box::default(),
            atomic: false,
            patch_strategies: Box::default(),
            patch_merge_key: None,
            items: None,
            properties: Box::default(),
            written: OnceLock::new(),
            layout: OnceLock::new(),
        }
    }

    /// With these members, which are put in the order that look-ups need.
    #[must_use]
    pub fn with_properties(mut self, mut properties: Vec<Property>) -> Self {
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        self.properties = properties.into();
        self
    }

    /// With this schema for elements (list) or values (map).
    #[must_use]
    pub fn with_items(mut self, items: Arc<Schema>) -> Self {
        self.items = Some(Link::Ready(items));
        self
    }

    /// Schema of the member `name`; for a map, of any member.
    pub fn property(&self, name: &str) -> Option<&Arc<Schema>> {
        match self.kind {
            Type::Map => self.items(),
            _ => self.field(name).map(Property::schema),
        }
    }

    /// The member `name` with what Go and protobuf say of it.
    pub fn field(&self, name: &str) -> Option<&Property> {
        self.properties.binary_search_by(|p| (*p.name).cmp(name)).ok().map(|i| &self.properties[i])
    }

    /// Members in the order of their names.
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// Members that Go writes even when nobody set them.
    pub fn written(&self) -> impl Iterator<Item = &Property> {
        let indexes = self.written.get_or_init(|| {
            let always = self.properties.iter().enumerate().filter(|(_, p)| p.always_written());
            always.filter_map(|(i, _)| u16::try_from(i).ok()).collect()
        });
        indexes.iter().map(|i| &self.properties[usize::from(*i)])
    }

    pub(crate) fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Box::new(Layout::of(&self.properties)))
    }

    /// A list that is a message of its own in protobuf (ExtraValue, Verbs).
    pub(crate) fn is_named_list(&self) -> bool {
        self.kind == Type::List && !self.message.is_empty()
    }

    /// Schema of a list's elements or a map's values.
    pub fn items(&self) -> Option<&Arc<Schema>> {
        self.items.as_ref().map(Link::get)
    }

    /// `x-kubernetes-patch-merge-key`.
    pub fn patch_merge_key(&self) -> Option<&str> {
        self.patch_merge_key.as_deref()
    }

    /// `x-kubernetes-patch-strategy`: `merge`, `retainKeys`, `replace`.
    pub fn patch_strategies(&self) -> impl Iterator<Item = &str> {
        self.patch_strategies.iter().map(|s| &**s)
    }

    /// Whether strategic merge goes by elements (`merge` among the strategies).
    pub fn patch_merges(&self) -> bool {
        self.patch_strategies().any(|s| s == "merge")
    }

    /// The schema at a path of member names; lists are passed through to their elements.
    pub fn at<'a>(self: &'a Arc<Self>, path: &str) -> Option<&'a Arc<Self>> {
        path.split('.').filter(|name| !name.is_empty()).try_fold(self, |schema, name| {
            let mut schema = schema;
            while schema.kind == Type::List {
                schema = schema.items()?;
            }
            schema.property(name)
        })
    }

    /// A Go struct, which `omitempty` never leaves out.
    pub fn is_struct(&self) -> bool {
        match self.kind {
            Type::Object | Type::Time | Type::MicroTime | Type::Duration | Type::Quantity | Type::IntOrString => true,
            Type::Any | Type::SchemaOrList | Type::SchemaOrBool | Type::SchemaOrNames => !self.message.is_empty(),
            _ => false,
        }
    }
}

/// The schema that accepts anything.
pub fn any() -> &'static Arc<Schema> {
    static ANY: OnceLock<Arc<Schema>> = OnceLock::new();
    ANY.get_or_init(|| Arc::new(Schema { preserve_unknown: true, ..Schema::of(Type::Any) }))
}
